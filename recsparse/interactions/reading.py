"""A dataset directory read in pieces: row groups one after the other, from mapped files, in bounded memory."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsparse.errors import FormatError
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.store import read_info

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Users:
    """Consecutive users with all their interactions, in CSR form; the arrays are views of what Parquet decoded.

    Attributes:
        first: row of the first user.
        indptr: shape (users + 1,), int64, from 0.
        items: item rows, int32, ascending within a user.
        values: float32.
        times: int64 seconds since the epoch, or None.
    """

    first: int
    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    times: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def between(self, start: int, stop: int) -> "Users":
        """Only the users with rows ``start`` to ``stop`` - 1, without a copy."""
        low, high = max(start - self.first, 0), min(stop - self.first, len(self))
        own = slice(self.indptr[low], self.indptr[high])
        times = None if self.times is None else self.times[own]
        indptr = self.indptr[low : high + 1] - self.indptr[low]
        return Users(self.first + low, indptr, self.items[own], self.values[own], times)


@dataclass(frozen=True)
class RowGroup:
    """Where a row group lies and which users it holds."""

    file: Path
    number: int
    first: int
    users: int


def row_groups(directory: Path) -> list[RowGroup]:
    """List a dataset's row groups in order, from the files' footers only.

    Raises:
        FormatError: a file is missing or damaged.
    """
    directory = Path(directory)
    groups = []
    for part in read_info(directory)["parts"]:
        file, first = directory / "interactions" / part["file"], part["first"]
        try:
            footer = pq.read_metadata(file)
        except (OSError, pa.ArrowException) as error:
            raise FormatError(f"{file} cannot be read: {error}") from error
        for number in range(footer.num_row_groups):
            users = footer.row_group(number).num_rows
            groups.append(RowGroup(file, number, first, users))
            first += users
    return groups


def read_group(group: RowGroup) -> Users:
    """Read one row group from the mapped file.

    Raises:
        FormatError: the file is missing or damaged.
    """
    try:
        with pq.ParquetFile(group.file, memory_map=True) as file:
            table = file.read_row_group(group.number).combine_chunks()
    except (OSError, pa.ArrowException) as error:
        raise FormatError(f"{group.file} cannot be read: {error}") from error
    lists = table["items"].chunk(0)
    flat = [table[name].chunk(0).flatten().to_numpy() for name in table.column_names[1:]]
    offsets = lists.offsets.to_numpy().astype(np.int64)
    return Users(group.first, offsets - offsets[0], flat[0], flat[1], flat[2] if len(flat) > 2 else None)


def stream(directory: Path, groups: Sequence[RowGroup] | None = None) -> Iterator[Users]:
    """Read a dataset row group by row group, each of about a quarter of a million interactions.

    Args:
        directory: the dataset.
        groups: which row groups; None reads all, in order.

    Raises:
        FormatError: a file is missing or damaged.
    """
    for group in row_groups(directory) if groups is None else groups:
        yield read_group(group)


def to_arrow(interactions: Interactions) -> pa.Table:
    """Give a row a user: user, items, values and, where known, times; the arrays are shared, not copied."""
    matrix = interactions.matrix
    wide = matrix.indptr.dtype == np.int64
    make = pa.LargeListArray.from_arrays if wide else pa.ListArray.from_arrays
    offsets = pa.array(matrix.indptr)
    columns: dict[str, Any] = {"user": np.arange(matrix.shape[0], dtype=np.int64)}
    columns |= {"items": make(offsets, pa.array(matrix.indices)), "values": make(offsets, pa.array(matrix.data))}
    if interactions.times is not None:
        columns["times"] = make(offsets, pa.array(interactions.times))
    return pa.table(columns)


def to_torch(interactions: Interactions) -> "torch.Tensor":
    """Give the matrix as a torch CSR tensor that shares the SciPy matrix's arrays."""
    import torch  # noqa: PLC0415 (takes seconds)

    matrix = interactions.matrix
    indptr, indices, values = (torch.from_numpy(array) for array in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        return torch.sparse_csr_tensor(indptr, indices, values, size=matrix.shape, check_invariants=False)

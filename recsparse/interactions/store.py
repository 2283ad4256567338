"""Interactions on disk: ``dataset.json``, ``users.parquet``, ``items.parquet``, ``interactions/part-*.parquet``.

A Parquet list column is CSR: Arrow's offsets are ``indptr``, its values ``indices``. Row groups hold about
:data:`GROUP_ENTRIES` interactions and never part of a user.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from recsparse.errors import FormatError
from recsparse.files import atomic_directory
from recsparse.interactions.interactions import Interactions

FORMAT_VERSION = 1
PART_ENTRIES = 1 << 23
GROUP_ENTRIES = 1 << 18
GROUP_ROWS = 1 << 17

Indptr = npt.NDArray[np.int64]


def read_info(directory: Path) -> dict[str, Any]:
    """Read ``dataset.json``.

    Raises:
        FormatError: it is not there, not JSON, or of a version this release does not read.
    """
    file = Path(directory) / "dataset.json"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(
            f"{directory} is not a dataset directory: it has no dataset.json. Make one with build."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{file} is damaged: {error}.") from error
    version = info.get("format_version") if isinstance(info, dict) else None
    if version != FORMAT_VERSION:
        raise FormatError(f"{file} is of format version {version}; this release reads version {FORMAT_VERSION}.")
    return info  # type: ignore[no-any-return]


def read(directory: Path) -> Interactions:
    """Read a dataset directory into memory.

    Cost: one pass over the files; about 16 bytes an interaction with times, 8 without.

    Raises:
        FormatError: a file is missing, damaged, or does not agree with ``dataset.json``.
    """
    directory = Path(directory)
    info = read_info(directory)
    users, items = (read_table(directory / name) for name in ("users.parquet", "items.parquet"))
    counts: list[npt.NDArray[Any]] = []
    columns: dict[str, list[npt.NDArray[Any]]] = {"items": [], "values": [], "times": []}
    for part in info["parts"]:
        table = read_table(directory / "interactions" / part["file"])
        for batch in table.to_batches():
            counts.append(np.diff(batch["items"].offsets.to_numpy()))
            for name, pieces in columns.items():
                if name in batch.schema.names:
                    pieces.append(batch[name].flatten().to_numpy())
    indptr = np.zeros(users.num_rows + 1, dtype=np.int64)
    lengths = np.concatenate([np.zeros(0, dtype=np.int64), *counts])
    if len(lengths) != users.num_rows or lengths.sum() != info["counts"]["interactions"]:
        raise FormatError(f"{directory}: the parts do not hold what dataset.json says; build it again.")
    np.cumsum(lengths, out=indptr[1:])
    indices = np.concatenate([np.zeros(0, dtype=np.int32), *columns["items"]])
    values = np.concatenate([np.zeros(0, dtype=np.float32), *columns["values"]])
    times = np.concatenate([np.zeros(0, dtype=np.int64), *columns["times"]]) if info["times"] else None
    matrix = sp.csr_array((values, indices, indptr), shape=(users.num_rows, items.num_rows))
    return Interactions(matrix, users, items, times)


def read_table(file: Path) -> pa.Table:
    """Read one Parquet file.

    Raises:
        FormatError: it is missing or damaged.
    """
    try:
        return pq.read_table(file, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise FormatError(f"{file} cannot be read: {error}") from error


def write(
    interactions: Interactions, directory: Path, *, name: str | None = None, overwrite: bool = False,
    about: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write interactions as a dataset directory; it appears whole or not at all.

    Args:
        interactions: what to write.
        directory: where; refused if it exists, unless ``overwrite``.
        name: the dataset's name; None takes the directory's.
        overwrite: replace an existing directory.
        about: further keys for ``dataset.json``.

    Raises:
        DataError: the directory exists.
    """
    directory = Path(directory)
    with atomic_directory(directory, overwrite=overwrite) as partial:
        fill(interactions, partial, name=name or directory.name, about=about)
    return directory


def fill(interactions: Interactions, directory: Path, *, name: str, about: dict[str, Any] | None = None) -> None:
    """Write the files of a dataset into ``directory``, which its owner makes appear atomically."""
    matrix = interactions.matrix
    writer = DatasetWriter(directory, interactions.times is not None)
    writer.add(matrix.indptr.astype(np.int64), matrix.indices, matrix.data, interactions.times)
    writer.close(interactions.users, interactions.items, name, about)


class DatasetWriter:
    """Writes a dataset of users that come piece by piece, a part at a time in memory.

    Args:
        directory: where the files go; its owner makes it appear atomically.
        timed: whether there are times.
    """

    def __init__(self, directory: Path, timed: bool) -> None:
        self.directory, self.timed = directory, timed
        self.parts: list[dict[str, Any]] = []
        self.users = 0
        self._waiting: list[tuple[Any, ...]] = []
        (directory / "interactions").mkdir(parents=True)

    def add(self, indptr: Indptr, items: Any, values: Any, times: Any) -> None:
        """Add users in CSR form; ``indptr`` starts at 0."""
        self._waiting.append((np.diff(indptr), items, values, times))
        if sum(len(piece[1]) for piece in self._waiting) > PART_ENTRIES:
            self._flush(keep_last=True)

    def close(self, users: pa.Table, items: pa.Table, name: str, about: dict[str, Any] | None = None) -> None:
        """Write what is left, the users, the items and ``dataset.json``."""
        self._flush(keep_last=False)
        write_table(users, self.directory / "users.parquet")
        write_table(items, self.directory / "items.parquet")
        shape = (users.num_rows, items.num_rows)
        write_info(self.directory, name, shape, self.parts, times=self.timed, about=about or {})

    def _flush(self, *, keep_last: bool) -> None:
        """Write whole parts; the last one, which more users may still join, only at the end."""
        if not self._waiting:
            return
        counts, items, values = (_joined([piece[place] for piece in self._waiting]) for place in range(3))
        times = _joined([piece[3] for piece in self._waiting]) if self.timed else None
        indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        ranges = list(cut(indptr, PART_ENTRIES))
        self._waiting = []
        for first, last in ranges:
            own = slice(indptr[first], indptr[last])
            mine = None if times is None else times[own]
            if keep_last and last == len(counts):
                self._waiting = [(counts[first:], items[own], values[own], mine)]
                break
            file = self.directory / "interactions" / part_name(len(self.parts))
            part = write_part(file, self.users, indptr[first : last + 1], items[own], values[own], times=mine)
            self.parts.append(part)
            self.users += last - first


def _joined(pieces: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def write_info(
    directory: Path,
    name: str,
    shape: tuple[int, int],
    parts: list[dict[str, Any]],
    *,
    times: bool,
    about: dict[str, Any],
) -> None:
    """Write ``dataset.json``. It holds no time and no path of this machine: equal data give equal bytes."""
    n_users, n_items = shape
    nnz = sum(part["interactions"] for part in parts)
    info = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "counts": {"users": n_users, "items": n_items, "interactions": nnz},
        "density": nnz / max(n_users * n_items, 1),
        "times": times,
        "parts": parts,
        **about,
    }
    (directory / "dataset.json").write_text(json.dumps(info, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def part_name(number: int) -> str:
    """Name of a part's file."""
    return f"part-{number:05d}.parquet"


def cut(indptr: Indptr, size: int) -> Iterator[tuple[int, int]]:
    """Cut users into ranges [first, last) of at most ``size`` interactions, or one user with more.

    >>> list(cut(np.array([0, 2, 4, 9, 10]), 4))
    [(0, 2), (2, 3), (3, 4)]
    """
    first, n_users = 0, len(indptr) - 1
    while first < n_users:
        last = max(int(np.searchsorted(indptr, indptr[first] + size, side="right")) - 1, first + 1)
        yield first, last
        first = last


def write_table(table: pa.Table, file: Path) -> None:
    """Write the users or the items."""
    pq.write_table(table, file, compression="zstd", row_group_size=GROUP_ROWS)


def write_stream(batches: Iterator[pa.RecordBatch], *, file: Path) -> int:
    """Write the rows of a query as the users or the items, without holding them all; give their number."""
    first = next(batches)
    schema = pa.schema([pa.field(field.name, _plain(field.type)) for field in first.schema])
    rows, waiting = 0, pa.Table.from_batches([first]).cast(schema)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in itertools.chain(batches, [None]):
            if batch is not None:
                waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch]).cast(schema)])
            while waiting.num_rows >= GROUP_ROWS or (batch is None and waiting.num_rows):
                writer.write_table(waiting.slice(0, GROUP_ROWS))
                rows += min(waiting.num_rows, GROUP_ROWS)
                waiting = waiting.slice(GROUP_ROWS)
    return rows


def _plain(kind: pa.DataType) -> pa.DataType:
    """Give the type without what engines call its parts, so that equal data make equal files."""
    return pa.list_(pa.field("element", _plain(kind.value_type))) if pa.types.is_list(kind) else kind


def write_part(
    file: Path, first: int, indptr: Indptr, items: npt.NDArray[np.int32], values: npt.NDArray[np.float32], *,
    times: npt.NDArray[np.int64] | None,
) -> dict[str, Any]:  # fmt: skip
    """Write the users ``first``, ... whose interactions are given in CSR form; say what was written.

    Args:
        file: where.
        first: row of the first user.
        indptr: shape (users + 1,); it need not start at 0.
        items: item rows, ascending within a user.
        values: aligned with ``items``.
        times: aligned with ``items``, or None.
    """
    indptr = indptr - indptr[0]
    columns = {"items": items, "values": values} | ({} if times is None else {"times": times})
    kinds = {"items": pa.int32(), "values": pa.float32(), "times": pa.int64()}
    schema = pa.schema(
        [pa.field("user", pa.int64(), nullable=False)]
        + [
            pa.field(name, pa.list_(pa.field("element", kinds[name], nullable=False)), nullable=False)
            for name in columns
        ]
    )
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=["values.list.element"]) as writer:
        for start, stop in cut(indptr, GROUP_ENTRIES):
            offsets = pa.array((indptr[start : stop + 1] - indptr[start]).astype(np.int32))
            own = slice(indptr[start], indptr[stop])
            lists = [
                pa.ListArray.from_arrays(offsets, pa.array(column[own], kinds[name]), type=schema.field(name).type)
                for name, column in columns.items()
            ]
            users = pa.array(np.arange(first + start, first + stop, dtype=np.int64))
            writer.write_batch(pa.record_batch([users, *lists], schema=schema))
    return {"file": file.name, "first": first, "users": len(indptr) - 1, "interactions": int(indptr[-1])}


def write_sorted(batches: Iterator[pa.RecordBatch], *, file: Path, first: int, last: int) -> dict[str, Any]:
    """Write rows ``u, i, value[, t]`` sorted by (u, i) as the part of the users ``first`` to ``last`` - 1."""
    pieces = list(batches)
    names = pieces[0].schema.names if pieces else ["u", "i", "value"]
    u, *columns = (np.concatenate([batch[name].to_numpy() for batch in pieces]) for name in names)
    indptr = np.zeros(last - first + 1, dtype=np.int64)
    np.cumsum(np.bincount(u - first, minlength=last - first), out=indptr[1:])
    times = columns[2] if len(columns) == 3 else None
    return write_part(file, first, indptr, columns[0], columns[1], times=times)

"""Who is scored, a range at a time: users in memory, or the rows of a dataset directory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse as sp

from recsparse.errors import DataError, FormatError
from recsparse.interactions.interactions import ITEM, USER, Interactions, Rows
from recsparse.interactions.store import read_info, read_table
from recsparse.models.base import Recommender, items_digest, take_rows

Ids = Sequence[Any] | Path


@dataclass(frozen=True)
class Block:
    """Some users.

    Attributes:
        table: column user_id, and features where the source has them.
        rows: (B,) training rows, -1 for who is represented by the history alone.
        histories: (B, I) CSR over the model's items.
    """

    table: pa.Table
    rows: Rows
    histories: sp.csr_array


class Users(Protocol):
    """Users in a fixed order."""

    count: int
    id_type: pa.DataType

    def read(self, start: int, stop: int) -> Block:
        """The users ``start`` to ``stop``."""


class MemoryUsers:
    """Users of an ``Interactions``, or a table of ids of whom some may be unknown there.

    Args:
        source: their interactions, over the model's items.
        table: column user_id (and features); None takes all users of the source.
        trained: whether the source is what the model was trained on.
    """

    def __init__(self, source: Interactions, table: pa.Table | None = None, *, trained: bool) -> None:
        known = source.users[USER].type
        if table is not None and table.num_rows == 0:
            table = pa.table({USER: pa.array([], known)})
        if table is not None:
            _check_type(table[USER].type, known)
        self.source, self.trained = source, trained
        self.table = source.users if table is None else table
        self.all = table is None
        self.count = self.table.num_rows
        self.id_type = self.table[USER].type

    def read(self, start: int, stop: int) -> Block:
        """The users ``start`` to ``stop``."""
        table = self.table.slice(start, stop - start)
        rows = np.arange(start, stop) if self.all else self.source.user_rows(table[USER].to_pylist())
        return Block(table, rows if self.trained else np.full_like(rows, -1), take_rows(self.source.matrix, rows))


class DatasetUsers:
    """The users of a dataset directory (see :mod:`recsparse.interactions.store`), read row group by row group.

    Args:
        directory: the dataset.
        model: whose items the histories are to be over.
        match_items: match items by id and leave out those the model does not know, where the catalogues differ.

    Raises:
        DataError: the catalogues differ and ``match_items`` is false, or they share nothing.
        FormatError: a file is missing or damaged.
    """

    def __init__(self, directory: Path, model: Recommender, *, match_items: bool = False) -> None:
        info = read_info(directory)
        self.n_items = model.items_.num_rows
        self.column_of = _match(directory, model, match_items=match_items)
        self.users = RowReader([directory / "users.parquet"])
        self.parts = RowReader([directory / "interactions" / part["file"] for part in info["parts"]])
        self.count = self.users.count
        self.id_type = self.users.schema.field(USER).type
        if self.parts.count != self.count:
            raise FormatError(
                f"{directory} has {self.count} users but interactions of {self.parts.count}; build it again."
            )

    def read(self, start: int, stop: int) -> Block:
        """The users ``start`` to ``stop``."""
        lists = self.parts.read(start, stop, ["items", "values"]).combine_chunks()
        indptr = np.zeros(stop - start + 1, dtype=np.int64)
        np.cumsum(pc.list_value_length(lists["items"]).to_numpy(), out=indptr[1:])
        items, values = (pc.list_flatten(lists[name]).to_numpy() for name in ("items", "values"))
        columns = items if self.column_of is None else self.column_of[items]
        if self.column_of is not None:
            known = columns >= 0
            indptr = np.concatenate([[0], np.cumsum(known)])[indptr]
            columns, values = columns[known].astype(np.int32), values[known]
        histories = sp.csr_array((values, columns, indptr), shape=(stop - start, self.n_items))
        if self.column_of is not None:
            histories.sort_indices()
        return Block(self.users.read(start, stop), np.full(stop - start, -1, dtype=np.int64), histories)


class RowReader:
    """Rows of Parquet files by number, reading only the row groups they lie in."""

    def __init__(self, files: list[Path]) -> None:
        try:
            self.files = [pq.ParquetFile(file) for file in files]
        except (OSError, pa.ArrowException) as error:
            raise FormatError(f"{files[0].parent} cannot be read: {error}") from error
        self.schema: pa.Schema = self.files[0].schema_arrow
        groups = [(file, group) for file in self.files for group in range(file.num_row_groups)]
        self.groups = groups
        self.ends = list(accumulate(file.metadata.row_group(group).num_rows for file, group in groups))
        self.count = self.ends[-1] if self.ends else 0

    def read(self, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
        """Rows ``start`` to ``stop``."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.ends, stop, side="left"))
        try:
            pieces = [file.read_row_group(group, columns) for file, group in self.groups[first : last + 1]]
        except (OSError, pa.ArrowException) as error:
            raise FormatError(f"Rows {start} to {stop} cannot be read: {error}") from error
        table = pa.concat_tables(pieces) if pieces else self.schema.empty_table()
        return table.slice(start - (self.ends[first - 1] if first else 0), stop - start)

    def blocks(self) -> Iterator[pa.Table]:
        """Each row group in turn."""
        for file, group in self.groups:
            yield file.read_row_group(group)


def read_ids(ids: Ids, column: str) -> pa.Table:
    """Read distinct ids from a list or the ``column`` of a Parquet file, in order of first appearance.

    Raises:
        DataError: the column is missing, an id is null, or the ids are of mixed types.
        FormatError: the file is damaged.
    """
    if isinstance(ids, Path):
        table = read_table(ids)
        if column not in table.column_names:
            raise DataError(f"{ids} has no column {column!r}; it has {table.column_names}.")
    else:
        try:
            table = pa.table({column: pa.array(list(ids))})
        except pa.ArrowException as error:
            raise DataError(f"The list of {column}s mixes types: {error}.") from error
    if table[column].null_count:
        raise DataError(f"Entry {table[column].is_null().index(True).as_py()} of the {column}s is null; drop it.")
    if table.num_rows == 0:
        return table
    codes = np.asarray(table[column].combine_chunks().dictionary_encode().indices)
    _, first = np.unique(codes, return_index=True)
    return table if len(first) == table.num_rows else table.take(pa.array(np.sort(first)))


def _check_type(given: pa.DataType, known: pa.DataType) -> None:
    def kind(dtype: pa.DataType) -> str:
        if pa.types.is_integer(dtype):
            return "whole numbers"
        return "text" if pa.types.is_string(dtype) or pa.types.is_large_string(dtype) else str(dtype)

    if kind(given) != kind(known):
        raise DataError(f"The user ids given are {kind(given)}, those known are {kind(known)}; convert them.")


def _match(directory: Path, model: Recommender, *, match_items: bool) -> Rows | None:
    items = read_table(directory / "items.parquet")
    if items_digest(items) == items_digest(model.items_):
        return None
    if not match_items:
        raise DataError(
            f"{directory} has another catalogue than the model ({items.num_rows} and {model.items_.num_rows} items, "
            "or in another order); score the data the model was made for, or ask to match items by id (match_items)."
        )
    none = sp.csr_array((0, model.items_.num_rows), dtype=np.float32)
    rows = Interactions(none, model.users_.slice(0, 0), model.items_).item_rows(items[ITEM].to_pylist())
    if not (rows >= 0).any():
        raise DataError(f"{directory} and the model share no item id; are they of the same kind?")
    return rows

"""The user x item matrix in memory, with the ids and features of its rows and columns."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp

from recsparse.errors import DataError

USER = "user_id"
ITEM = "item_id"

Rows = npt.NDArray[np.int64]


def check_not_negative(
    matrix: sp.csr_array, why: str, users: pa.ChunkedArray | None = None, items: pa.ChunkedArray | None = None
) -> None:
    """Refuse a negative value; ``why`` says what a model takes values as, and what to do.

    Args:
        matrix: users x items.
        why: the rest of the sentence.
        users: their ids; row numbers by default.
        items: likewise.

    Raises:
        DataError: there is one.
    """
    if (matrix.data < 0).any():
        entry = int(np.argmax(matrix.data < 0))
        row, column = int(np.searchsorted(matrix.indptr, entry, side="right")) - 1, int(matrix.indices[entry])
        user = f"history {row}" if users is None else f"user {users[row].as_py()!r}"
        item = f"item row {column}" if items is None else f"item {items[column].as_py()!r}"
        raise DataError(f"The value {matrix.data[entry]} of {user} and {item} is negative, and {why}.")


@dataclass(frozen=True, eq=False)
class Interactions:
    """A users x items matrix ``X`` in CSR form, which owns the original ids.

    Attributes:
        matrix: shape (U, I), float32, item rows ascending within a user, no repeated pair; a stored zero counts.
        users: one row a user, in matrix order: column ``user_id`` (as given), then the feature columns.
        items: one row an item, in matrix order: column ``item_id`` (as given), then the feature columns.
        times: shape (nnz,), int64 seconds since the epoch, aligned with ``matrix.data``; None where not known.

    Example:
        >>> frame = pd.DataFrame({"user_id": ["ann", "ann", "bob"], "item_id": [7, 9, 7]})
        >>> interactions = Interactions.from_frame(frame)
        >>> interactions.matrix.toarray()
        array([[1., 1.],
               [1., 0.]], dtype=float32)
        >>> interactions.user_rows(["bob", "eve"])
        array([ 1, -1])
    """

    matrix: sp.csr_array
    users: pa.Table
    items: pa.Table
    times: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n_users, n_items = self.matrix.shape
        if self.matrix.format != "csr":
            raise DataError(f"The matrix is stored as {self.matrix.format}; pass a scipy.sparse.csr_array.")
        for name, table, column, count in (("users", self.users, USER, n_users), ("items", self.items, ITEM, n_items)):
            if column not in table.column_names:
                raise DataError(f"The {name} table has no column {column!r} (it has {table.column_names}).")
            if table.num_rows != count:
                raise DataError(f"The {name} table has {table.num_rows} rows, the matrix {count} {name}.")
        if not np.isfinite(self.matrix.data).all():
            where = int(np.argmin(np.isfinite(self.matrix.data)))
            user = int(np.searchsorted(self.matrix.indptr, where, side="right")) - 1
            raise DataError(
                f"The value {self.matrix.data[where]} of user {self.users[USER][user].as_py()!r} is not finite; "
                "remove it or give it a number."
            )
        low, high = (int(edge) for edge in (self.matrix.indices.min(initial=0), self.matrix.indices.max(initial=-1)))
        if low < 0 or high >= n_items:
            raise DataError(
                f"The matrix has an entry in column {low if low < 0 else high} of {n_items}; build it anew."
            )
        if (np.diff(self.matrix.indptr) < 0).any():
            raise DataError("The matrix is malformed, its row starts descend; build it anew.")
        ascending = self.matrix if self.matrix.has_sorted_indices else self.matrix.sorted_indices()
        if not ascending.has_canonical_format:
            raise DataError("The matrix has a pair of user and item twice; call its sum_duplicates().")
        if self.times is not None and len(self.times) != self.matrix.nnz:
            raise DataError(f"There are {len(self.times)} times for {self.matrix.nnz} interactions.")

    def check_not_negative(self, why: str) -> None:
        """:func:`check_not_negative` of the matrix, with the ids."""
        check_not_negative(self.matrix, why, self.users[USER], self.items[ITEM])

    @classmethod
    def from_csr(cls, matrix: Any) -> Self:
        """Wrap a bare SciPy matrix (or dense array), with row numbers as ids. Repeated pairs are summed."""
        matrix = sp.csr_array(matrix, dtype=np.float32)
        matrix.sum_duplicates()
        n_users, n_items = matrix.shape
        return cls(
            matrix,
            pa.table({USER: np.arange(n_users, dtype=np.int64)}),
            pa.table({ITEM: np.arange(n_items, dtype=np.int64)}),
        )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        user: str = USER,
        item: str = ITEM,
        value: str | None = None,
        time: str | None = None,
    ) -> Self:
        """Build from a frame with a line an interaction; of repeated pairs the last line counts.

        Rows and columns are in ascending order of the ids. For files, and for data larger than memory, use
        :func:`recsparse.interactions.build`.

        Raises:
            DataError: a column is missing, an id is null, or a value is not a finite number.
        """
        for column in (user, item, value, time):
            if column is not None and column not in frame.columns:
                raise DataError(f"There is no column {column!r}; the frame has {list(frame.columns)}.")
        for column in (user, item):
            if frame[column].isna().any():
                line = int(np.flatnonzero(frame[column].isna())[0])
                raise DataError(f"Line {line} of the frame has no {column!r}; drop it or give it an id.")
        frame = frame.drop_duplicates([user, item], keep="last")
        user_codes, user_ids = pd.factorize(frame[user], sort=True)
        item_codes, item_ids = pd.factorize(frame[item], sort=True)
        order = np.lexsort((item_codes, user_codes))
        if value is None:
            values = np.ones(len(frame), dtype=np.float32)
        else:
            values = pd.to_numeric(frame[value]).to_numpy(dtype=np.float32)
        indptr = np.zeros(len(user_ids) + 1, dtype=np.int64)
        np.cumsum(np.bincount(user_codes, minlength=len(user_ids)), out=indptr[1:])
        matrix = sp.csr_array(
            (values[order], item_codes[order].astype(np.int32), indptr), shape=(len(user_ids), len(item_ids))
        )
        times = None if time is None else frame[time].to_numpy(dtype=np.int64)[order]
        users = pa.table({USER: pa.array(user_ids)})
        return cls(matrix, users, pa.table({ITEM: pa.array(item_ids)}), times)

    @property
    def shape(self) -> tuple[int, int]:
        """(users, items)."""
        n_users, n_items = self.matrix.shape
        return int(n_users), int(n_items)

    @property
    def nnz(self) -> int:
        """The number of interactions."""
        return int(self.matrix.nnz)

    @cached_property
    def user_ids(self) -> npt.NDArray[Any]:
        """The users' original ids, shape (U,), in row order."""
        return _ids(self.users[USER])

    @cached_property
    def item_ids(self) -> npt.NDArray[Any]:
        """The items' original ids, shape (I,), in column order."""
        return _ids(self.items[ITEM])

    @cached_property
    def _user_index(self) -> pd.Index:
        return pd.Index(self.user_ids)

    @cached_property
    def _item_index(self) -> pd.Index:
        return pd.Index(self.item_ids)

    def user_rows(self, ids: Any) -> Rows:
        """Rows of these original user ids, int64; -1 for an id that is not here."""
        return _rows(self._user_index, ids)

    def item_rows(self, ids: Any) -> Rows:
        """Rows of these original item ids, int64; -1 for an id that is not here."""
        return _rows(self._item_index, ids)

    def select_users(self, rows: npt.ArrayLike) -> Self:
        """The same items, only these users, in this order."""
        rows = np.asarray(rows, dtype=np.int64)
        taken = self.matrix[rows]
        times = None
        if self.times is not None:
            position = sp.csr_array(
                (np.arange(self.nnz, dtype=np.int64), self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape
            )
            times = self.times[position[rows].data]
        return replace(self, matrix=taken, users=self.users.take(pa.array(rows)), times=times)

    def select_entries(self, keep: npt.NDArray[np.bool_]) -> Self:
        """The same users and items, only the interactions where ``keep`` (shape (nnz,)) is true."""
        if keep.shape != (self.nnz,) or keep.dtype != np.bool_:
            raise DataError(f"keep has shape {keep.shape} and dtype {keep.dtype}; it must be ({self.nnz},) and bool.")
        counts = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        matrix = sp.csr_array(
            (self.matrix.data[keep], self.matrix.indices[keep], counts[self.matrix.indptr]), shape=self.matrix.shape
        )
        return replace(self, matrix=matrix, times=None if self.times is None else self.times[keep])

    def with_items(self, items: pa.Table) -> Self:
        """The same users over another catalogue (a model's, say): columns follow ``items`` by id.

        Interactions with items that ``items`` does not have are left out.
        """
        if items[ITEM].equals(self.items[ITEM]):
            return replace(self, items=items)
        column_of = _rows(pd.Index(_ids(items[ITEM])), self.item_ids)
        kept = self.select_entries(column_of[self.matrix.indices] >= 0)
        users = np.repeat(np.arange(self.shape[0]), np.diff(kept.matrix.indptr))
        columns = column_of[kept.matrix.indices]
        order = np.lexsort((columns, users))
        matrix = sp.csr_array(
            (kept.matrix.data[order], columns[order].astype(np.int32), kept.matrix.indptr),
            shape=(self.shape[0], items.num_rows),
        )
        return replace(kept, matrix=matrix, items=items, times=None if kept.times is None else kept.times[order])

    def to_frame(self) -> pd.DataFrame:
        """A line an interaction with original ids: user_id, item_id, value and, where known, time."""
        columns = {
            USER: np.repeat(self.user_ids, np.diff(self.matrix.indptr)),
            ITEM: self.item_ids[self.matrix.indices],
            "value": self.matrix.data,
        }
        if self.times is not None:
            columns["time"] = self.times
        return pd.DataFrame(columns)


def _ids(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    if pa.types.is_integer(column.type):
        return np.asarray(column.to_numpy())
    return np.asarray(column.to_pylist(), dtype=object)


def _rows(index: pd.Index, ids: Any) -> Rows:
    return np.asarray(index.get_indexer(pd.Index(ids)), dtype=np.int64)

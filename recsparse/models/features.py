"""Features of users and items as numbers, for models and measures alike."""

from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict

from recsparse.interactions.interactions import ITEM, USER

Floats = npt.NDArray[np.float32]


class Number(BaseModel):
    """A numeric column: ``(x - mean) / std``, and 0 where it is missing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    mean: float
    std: float

    @property
    def names(self) -> list[str]:
        """Of the one column it becomes."""
        return [self.name]

    def encode(self, column: pa.Array) -> sp.csr_array:
        """Standardise, (N, 1)."""
        values = (_numbers(column) - self.mean) / self.std
        return sp.csr_array(np.where(np.isfinite(values), values, 0.0).astype(np.float32)[:, None])


class Category(BaseModel):
    """A column of strings, or of lists of strings: a column of zeros and ones for each known value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    values: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """``column=value`` for each value."""
        return [f"{self.name}={value}" for value in self.values]

    def encode(self, column: pa.Array) -> sp.csr_array:
        """Mark the values each row has, (N, values); unknown ones are ignored."""
        rows, flat = _flat(column)
        if not _is_text(flat.type):
            flat = flat.cast(pa.string())
        codes = pc.index_in(flat, value_set=pa.array(self.values, type=flat.type))
        known = np.asarray(codes.is_valid())
        at = np.asarray(codes.fill_null(0))[known], rows[known]
        marks = sp.csr_array((np.ones(len(at[0]), np.float32), (at[1], at[0])), shape=(len(column), len(self.values)))
        marks.sum_duplicates()
        marks.data[:] = 1.0
        return marks


class Encoding(BaseModel):
    """How the feature columns of a table become numbers, learned from one table and applied to any.

    Numbers and booleans are standardised. Strings are one-hot and lists of strings multi-hot, but for strings with over
    half as many values as rows (a title identifies, it does not describe). Ids and columns of other types are left out.

    Attributes:
        columns: what is encoded.

    Example:
        >>> items = pa.table({"item_id": [1, 2, 3], "year": [1990, 2000, None], "genres": [["War", "Comedy"], ["War"], []]})
        >>> encoding = Encoding.of(items)
        >>> encoding.names
        ['year', 'genres=Comedy', 'genres=War']
        >>> encoding.encode(items).toarray().tolist()
        [[-1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
        >>> encoding.encode(pa.table({"item_id": [9], "genres": [["War", "Opera"]]})).toarray().tolist()
        [[0.0, 0.0, 1.0]]
    """  # noqa: E501 (the example)

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[Number | Category, ...]

    @classmethod
    def of(cls, table: pa.Table, *, numbers: bool = True) -> Self:
        """Learn means, deviations and values of the columns.

        Args:
            table: users or items, an id and features.
            numbers: take numeric columns too.
        """
        columns: list[Number | Category] = []
        for name in table.column_names:
            column = table[name].combine_chunks()
            if name in (USER, ITEM):
                continue
            if _is_number(column.type):
                values = _numbers(column)
                values = values[np.isfinite(values)]
                if numbers and len(values) and values.std() > 0:
                    columns.append(Number(name=name, mean=values.mean(), std=values.std()))
                continue
            flat = _flat(column)[1]
            if _is_text(flat.type):
                known = sorted(flat.drop_null().unique().to_pylist())
                if known and (_is_list(column.type) or 2 * len(known) <= len(column)):
                    columns.append(Category(name=name, values=tuple(known)))
        return cls(columns=tuple(columns))

    @property
    def names(self) -> list[str]:
        """Of the encoded columns: a number's name, or ``column=value``."""
        return [name for column in self.columns for name in column.names]

    def encode(self, table: pa.Table) -> sp.csr_array:
        """Encode the rows of a table, (N, F) float32; a column that it does not have is unknown."""
        empty = sp.csr_array((table.num_rows, 0), dtype=np.float32)
        return sp.csr_array(
            sp.hstack(
                [empty]
                + [
                    column.encode(table[column.name].combine_chunks())
                    if column.name in table.column_names
                    else sp.csr_array((table.num_rows, len(column.names)), dtype=np.float32)
                    for column in self.columns
                ],
                format="csr",
                dtype=np.float32,
            )
        )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _numbers(column: pa.Array) -> npt.NDArray[np.float64]:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _flat(column: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """The values of a column and the row of each."""
    rows = np.arange(len(column), dtype=np.int64)
    if not _is_list(column.type):
        return rows, column
    return np.repeat(rows, column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)), column.flatten()

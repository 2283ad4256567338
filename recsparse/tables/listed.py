"""A table's entries as plain arrays, codes apart from their scales: what other libraries take, and give back."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.tables.bits import frozen
from recsparse.tables.fallback import Fallback, Mean, Zero
from recsparse.tables.mask import Counts, Mask
from recsparse.tables.packed import PackedTable
from recsparse.tables.sharded import ShardedTable
from recsparse.tables.supports import List
from recsparse.tables.table import Table
from recsparse.tables.values import (
    NO_BYTES,
    NO_EXPONENT,
    NO_FLOATS,
    Floats,
    decode_codes,
    is_integer,
    scale_bytes,
    with_scales,
)


@dataclass(frozen=True, eq=False)
class Listed:
    """A number is its code, times its row's and its column's scale.

    Attributes:
        starts: int64 (R + 1,), the first entry of each row, and how many there are.
        columns: int32 (n,).
        codes: float32 (n,), what is stored before any scale.
        row_scales, column_scales: float32 (R,) and (D,), ones where there are none.
        value_type: how the codes are stored.
        fallback: what rows without an entry return.
    """

    starts: Counts
    columns: npt.NDArray[np.int32]
    codes: Floats
    row_scales: Floats
    column_scales: Floats
    value_type: str
    fallback: Fallback

    @classmethod
    def of(cls, table: Table) -> Self:
        """The entries of a packed table, or of shards that are alike.

        Raises:
            DataError: the shards differ, or the table is low-rank.
        """
        if isinstance(table, ShardedTable):
            return cls._joined([cls.of(shard) for shard in table.shards])
        if not isinstance(table, PackedTable):
            raise DataError(
                f"A {type(table).__name__} has no entries of its own; export its parts, or pack(table.to_dense())."
            )
        values, (rows, dim) = table.values, table.shape
        row_scales, column_scales = np.ones(rows, dtype=np.float32), np.ones(dim, dtype=np.float32)
        if len(values.row_scales):
            row_scales[slice(None) if table.remap is None else table.remap.positions()] = values.scales
        if len(values.column_scales):
            column_scales[:] = values.column_scales
        starts = np.concatenate([[0], np.cumsum(table.row_counts())])
        scales = (row_scales, column_scales)
        return cls(starts, table.mask.columns(), decode_codes(values), *scales, table.value_type, table.fallback)

    @classmethod
    def _joined(cls, parts: list[Self]) -> Self:
        first = parts[0]
        for number, part in enumerate(parts):
            if not (
                part.value_type == first.value_type
                and np.array_equal(part.column_scales, first.column_scales)
                and _alike(part.fallback, first.fallback)
            ):
                raise DataError(
                    f"Shard {number} is {part.value_type} with fallback {part.fallback.kind!r}, shard 0 "
                    f"{first.value_type} with {first.fallback.kind!r}; shards become one table when value type, column "
                    "scales and fallback, zero or mean, are the same."
                )
        return replace(
            first,
            starts=np.concatenate([[0], np.cumsum(np.concatenate([np.diff(part.starts) for part in parts]))]),
            columns=np.concatenate([part.columns for part in parts]),
            codes=np.concatenate([part.codes for part in parts]),
            row_scales=np.concatenate([part.row_scales for part in parts]),
        )

    def to_table(self) -> PackedTable:
        """A csr table of the same codes and scales."""
        rows, dim = len(self.starts) - 1, len(self.column_scales)
        mask = Mask.from_csr(sp.csr_array((self.codes, self.columns, self.starts), shape=(rows, dim)))
        row_scales, exponent, column_scales = NO_BYTES, NO_EXPONENT, NO_FLOATS
        if is_integer(self.value_type) and (self.column_scales != 1).any():
            column_scales = self.column_scales
        elif is_integer(self.value_type):
            used = np.zeros(rows, dtype=np.bool_)
            used[np.repeat(np.arange(rows), np.diff(self.starts))[self.codes != 0]] = True
            row_scales, exponent = scale_bytes(self.row_scales, used)
        values = with_scales(self.codes, self.value_type, row_scales, exponent, frozen(column_scales))
        support = List.build(mask, np.arange(rows), uniform=False)
        return PackedTable((rows, dim), None, support, values, self.fallback)


def _alike(fallback: Fallback, other: Fallback) -> bool:
    if isinstance(fallback, Mean) and isinstance(other, Mean):
        return np.array_equal(fallback.vector, other.vector)
    return isinstance(fallback, Zero) and isinstance(other, Zero)

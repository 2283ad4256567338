"""A packed table: remap x support x values, and a fallback."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recsparse.errors import FormatError
from recsparse.kernels import gather
from recsparse.parallel import for_ranges
from recsparse.tables.bits import BitRank
from recsparse.tables.fallback import FALLBACKS, Fallback, Ids
from recsparse.tables.mask import Counts
from recsparse.tables.supports import SUPPORTS, Bitmap, Full, Header, List, Support, Tensors
from recsparse.tables.table import Table
from recsparse.tables.values import NO_BYTES, Floats, Values

MANY = 1 << 15
"""Ids from which a lookup is worth the start of threads."""


@dataclass(frozen=True, eq=False, repr=False)
class PackedTable(Table):
    """What :func:`recsparse.tables.pack` makes.

    Attributes:
        shape: (R, D).
        remap: which rows are stored; None when all are.
        support: which entries of them.
        values: their numbers, row after row.
        fallback: what the other rows return.
    """

    shape: tuple[int, int]
    remap: BitRank | None
    support: Support
    values: Values
    fallback: Fallback

    @property
    def layout(self) -> str:
        """dense, rows, bitmap, block, ell, csr or combination."""
        if isinstance(self.support, Full):
            return "dense" if self.remap is None else "rows"
        if isinstance(self.support, Bitmap):
            return "bitmap" if self.support.block == (1, 1) else "block"
        if isinstance(self.support, List):
            return "csr" if self.support.counted.width else "ell"
        return self.support.kind

    @property
    def value_type(self) -> str:
        """fp32, fp16, bf16 or int8 to int2."""
        return self.values.value_type

    @property
    def stored_rows(self) -> int:
        """How many rows are stored."""
        return self.shape[0] if self.remap is None else self.remap.ones

    def tensors(self) -> Tensors:
        """Remap, support, values and fallback."""
        remap = {} if self.remap is None else self.remap.tensors("remap")
        return {**remap, **self.support.tensors(), **self.values.tensors(), **self.fallback.tensors()}

    @property
    def header(self) -> Header:
        """What a file says of the table besides its tensors, JSON."""
        return {
            "kind": "packed",
            "shape": list(self.shape),
            "layout": self.layout,
            "value_type": self.value_type,
            "numbers": self.values.n,
            "remap": self.remap is not None,
            "support": {"kind": self.support.kind, **self.support.header},
            "fallback": {"kind": self.fallback.kind, **self.fallback.header},
        }

    @classmethod
    def from_tensors(cls, header: Header, tensors: Tensors) -> "PackedTable":
        """The inverse of ``header`` and ``tensors``."""
        rows, dim = header["shape"]
        if rows < 0 or dim < 1 or header["numbers"] < 0:
            raise ValueError(f"a shape of {rows} x {dim} with {header['numbers']} numbers")
        remap = BitRank.from_tensors(tensors, "remap", rows) if header["remap"] else None
        stored_rows = rows if remap is None else remap.ones
        support = SUPPORTS[header["support"]["kind"]].from_tensors(header["support"], tensors, stored_rows, dim)
        fallback = FALLBACKS[header["fallback"]["kind"]].from_tensors(header["fallback"], tensors)
        values = Values.from_tensors(header["value_type"], header["numbers"], tensors, stored_rows, dim)
        if isinstance(support, Full) and values.n != stored_rows * dim:
            raise ValueError(f"{values.n} numbers in {stored_rows} full rows of {dim}")
        return cls((rows, dim), remap, support, values, fallback)

    def row_counts(self) -> Counts:
        """Stored entries of each row, int64 (R,)."""
        counts = self.support.row_counts(self.stored_rows, self.shape[1])
        if self.remap is None:
            return counts
        result = np.zeros(self.shape[0], dtype=np.int64)
        result[self.remap.positions()] = counts
        return result

    @cached_property
    def _arguments(self) -> tuple[Any, ...]:
        remap = (NO_BYTES, NO_COUNTERS) if self.remap is None else (self.remap.bits, self.remap.counters)
        return (
            self.shape[0], self.stored_rows, *remap, *self.support.kernel_arguments(), self.values.n,
            *self.values.kernel_arguments(),
        )  # fmt: skip

    def _gather(self, ids: Ids, out: Floats) -> None:
        found = np.empty(len(ids), dtype=np.bool_)
        kernel, arguments, dim = self.support.kernel, self._arguments, self.shape[1]

        def work(start: int, stop: int) -> None:
            if kernel(
                ids[start:stop], *arguments, out[start:stop].reshape(-1), dim, found[start:stop], *gather.workspace(dim)
            ):
                raise FormatError("The table is damaged: a row's place is outside of what is stored. Save it again.")

        if len(ids) < MANY:
            work(0, len(ids))
        else:
            for_ranges(work, len(ids), step=MANY // 4)
        if self.fallback.kind != "zero" and not found.all():
            self.fallback.fill(ids, np.flatnonzero(~found), out)

    def slice_rows(self, start: int, stop: int) -> Table:
        """The same numbers, of these rows only."""
        raise NotImplementedError


NO_COUNTERS: npt.NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)
NO_COUNTERS.flags.writeable = False

"""A packed table: remap x support x values, and a fallback."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from recsparse.errors import FormatError
from recsparse.kernels import batches
from recsparse.kernels.decode import ONES
from recsparse.parallel import share
from recsparse.tables.arrays import check_rows
from recsparse.tables.bits import DAMAGED, BitRank, bit_buffer, frozen
from recsparse.tables.fallback import FALLBACKS, Fallback, Ids
from recsparse.tables.mask import Counts, Mask
from recsparse.tables.supports import SUPPORTS, Bitmap, Full, Header, List, Support, Tensors, build_support
from recsparse.tables.table import BLOCK_BYTES, Table
from recsparse.tables.values import NO_BYTES, NO_FLOATS, Floats, Values, decode_codes

MANY = 1 << 20
"""Entries from which a lookup is worth waking another thread for."""


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
        fallback = FALLBACKS[header["fallback"]["kind"]].from_tensors(header["fallback"], tensors, rows, dim)
        values = Values.from_tensors(header["value_type"], header["numbers"], tensors, stored_rows, dim)
        if values.n != support.first_number(stored_rows, dim):
            raise ValueError(f"{values.n} numbers in {stored_rows} rows of {dim} with another number of entries")
        table = cls((rows, dim), remap, support, values, fallback)
        if table.header != {name: header[name] for name in table.header}:
            raise ValueError(f"the header of a {table.layout} table")
        return table

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
        found = self._run(self.support.kernel, batches.workspace, ids, out)
        if self.fallback.kind != "zero" and not found.all():
            self.fallback.fill(ids, np.flatnonzero(~found), out)

    def _multiply(self, ids: Ids, basis: Floats, out: Floats) -> npt.NDArray[np.bool_]:
        """Write the rows of ``ids`` times a flat basis to ``out``, zeros where one is not stored; returns which are."""
        return self._run(self.support.product_kernel, lambda dim: (basis, *batches.listing_workspace(dim)), ids, out)

    def _run(
        self, kernel: Any, workspace: Callable[[int], tuple[Any, ...]], ids: Ids, out: Floats
    ) -> npt.NDArray[np.bool_]:
        found = np.empty(len(ids), dtype=np.bool_)
        arguments, dim = self._arguments, self.shape[1]

        def work(start: int, stop: int) -> None:
            part = out[start:stop].reshape(-1)
            if kernel(ids[start:stop], *arguments, part, dim, found[start:stop], *workspace(dim)):
                raise FormatError(DAMAGED)

        if out.size < MANY:
            work(0, len(ids))
        else:
            share(work, len(ids))
        return found

    def mask_rows(self, start: int, stop: int) -> Mask:
        """The stored entries of rows ``start`` to ``stop``, at granularity element; only those rows are read."""
        check_rows(start, stop, self.shape[0], "the table")
        rows, dim = stop - start, self.shape[1]
        bits = bit_buffer(rows * dim)
        arguments = list(self._arguments)
        arguments[-5:] = [NO_BYTES, ONES, NO_BYTES, NO_FLOATS, NO_FLOATS]
        step = max(8, BLOCK_BYTES // (4 * dim)) // 8 * 8  # whole bytes of bits at a time
        pattern = np.empty((min(step, rows), dim), dtype=np.float32)
        found = np.empty(len(pattern), dtype=np.bool_)
        for first in range(start, stop, step):
            ids = np.arange(first, min(first + step, stop), dtype=np.int64)
            part = pattern[: len(ids)]
            self.support.kernel(ids, *arguments, part.reshape(-1), dim, found, *batches.workspace(dim))
            packed = np.packbits((part != 0).reshape(-1), bitorder="little")
            at = (first - start) * dim // 8
            bits[at : at + len(packed)] = packed
        return Mask((rows, dim), (1, 1), frozen(bits))

    @cached_property
    def mask(self) -> Mask:
        """The stored entries, at granularity element."""
        return self.mask_rows(0, self.shape[0])

    @property
    def tile_mask(self) -> Mask:
        """:attr:`mask` in the tiles it is stored in, where they still begin at multiples of their rows."""
        if not isinstance(self.support, Bitmap):
            return self.mask
        block, ranked = self.support.block, self.support.ranked
        if self.remap is None:
            return Mask(self.shape, block, ranked.bits)
        first, tiles, places = self.remap.positions()[:: block[0]], self.shape[1] // block[1], ranked.positions()
        if (first % block[0]).any():  # the table was cut in the middle of a block
            return self.mask
        return Mask.from_places(first[places // tiles] // block[0] * tiles + places % tiles, self.shape, block)

    def numbers(self) -> Floats:
        """The stored entries' values, row after row, float32; they go with :attr:`mask`."""
        out = decode_codes(self.values)
        if len(self.values.row_scales):
            each = np.repeat(self.values.scales, self.support.row_counts(self.stored_rows, self.shape[1]))
        elif len(self.values.column_scales):
            each = self.values.column_scales[self.mask.columns()]
        else:
            return out
        if len(each) != len(out):
            raise FormatError(DAMAGED)
        out *= each
        return out

    def slice_rows(self, start: int, stop: int) -> "PackedTable":
        """The same numbers, of these rows only; nothing else is read. Blocks that are cut apart become a bitmap."""
        check_rows(start, stop, self.shape[0], "the table")
        dim = self.shape[1]
        first, last, remap = start, stop, None
        if self.remap is not None:
            first, last = self.remap.rank(start), self.remap.rank(stop)
            remap = self.remap.slice_bits(start, stop)
        if not 0 <= first <= last <= self.stored_rows:
            raise FormatError(DAMAGED)
        numbers = (self.support.first_number(first, dim), self.support.first_number(last, dim))
        if not 0 <= numbers[0] <= numbers[1] <= self.values.n:
            raise FormatError(DAMAGED)
        support: Support = self.support
        if isinstance(support, Bitmap) and first % support.block[0] == 0:
            r, tiles = support.block[0], dim // support.block[1]
            support = Bitmap(support.block, support.ranked.slice_bits(first // r * tiles, -(-last // r) * tiles))
        elif not isinstance(support, Full):
            mask = self.mask_rows(start, stop)
            rows = np.arange(stop - start) if remap is None else np.flatnonzero(mask.row_counts)
            support = build_support(self.layout, mask, rows)
        values = self.values.slice_numbers(*numbers, first, last)
        return PackedTable((stop - start, dim), remap, support, values, self.fallback.slice_rows(start, stop))


NO_COUNTERS: npt.NDArray[np.uint32] = np.zeros(0, dtype=np.uint32)
NO_COUNTERS.flags.writeable = False

"""Supports: which entries of the stored rows have a number, one class a way of saying it.

A table is a *remap* (which rows are stored) x a *support* (which of their entries) x *values* (the numbers, row after
row). Any combination works, and the bytes add up.

=============  ===================================================================================================
support        bits beside the numbers
=============  ===================================================================================================
Full           none
Bitmap         1.0625 a tile of r x c entries
List           ``log2 D`` an entry; nothing a row when all rows have as many, else a count and 2 (a start every 16)
Combination    ``log2 C(64, k)`` a chunk of 64 columns with k entries, a count a chunk, and 4 a row
=============  ===================================================================================================
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from recsparse.errors import DataError
from recsparse.kernels import gather, multiply, number
from recsparse.kernels.combinations import CHUNK
from recsparse.tables.bits import (
    BitRank,
    Bytes,
    bit_buffer,
    bits_for,
    buffer_bytes,
    frozen,
    pack_integers,
    stored,
)
from recsparse.tables.combinations import chunking, numbering, pair_sums
from recsparse.tables.counted import NO_STARTS, Counted, is_uniform, n_starts, start_array
from recsparse.tables.mask import Counts, Mask

Tensors = dict[str, npt.NDArray[Any]]
Header = dict[str, Any]


class Support(ABC):
    """What a table asks of its support."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def kernel(self) -> Any:
        """The kernel of :mod:`recsparse.kernels.gather` that reads it."""

    @property
    @abstractmethod
    def product_kernel(self) -> Any:
        """The kernel of :mod:`recsparse.kernels.multiply` that multiplies it."""

    @property
    def header(self) -> Header:
        """What a file says of it, JSON."""
        return {}

    @abstractmethod
    def tensors(self) -> Tensors:
        """What is stored, by name."""

    @abstractmethod
    def kernel_arguments(self) -> tuple[Any, ...]:
        """What its kernel takes between the remap and the values."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, header: Header, tensors: Tensors, rows: int, dim: int) -> "Support":
        """The inverse of ``header`` and ``tensors``, for so many stored rows."""

    @abstractmethod
    def row_counts(self, rows: int, dim: int) -> Counts:
        """Entries of each stored row, int64 (rows,)."""

    @abstractmethod
    def first_number(self, row: int, dim: int) -> int:
        """How many numbers the stored rows before this one have."""


@dataclass(frozen=True, eq=False)
class Full(Support):
    """Every entry of a stored row."""

    kind: ClassVar[str] = "full"

    @property
    def kernel(self) -> Any:
        """Plain rows."""
        return gather.gather_full

    @property
    def product_kernel(self) -> Any:
        """Every column is listed."""
        return multiply.multiply_full

    def tensors(self) -> Tensors:
        """Nothing is stored."""
        return {}

    def kernel_arguments(self) -> tuple[Any, ...]:
        """None."""
        return ()

    @classmethod
    def from_tensors(cls, header: Header, tensors: Tensors, rows: int, dim: int) -> "Full":
        """Nothing to read."""
        return cls()

    def row_counts(self, rows: int, dim: int) -> Counts:
        """D each."""
        return np.full(rows, dim, dtype=np.int64)

    def first_number(self, row: int, dim: int) -> int:
        """D a row."""
        return row * dim


@dataclass(frozen=True, eq=False)
class Bitmap(Support):
    """A bit a tile, ranked to find where a row's numbers begin."""

    block: tuple[int, int]
    ranked: BitRank

    kind: ClassVar[str] = "bitmap"

    @classmethod
    def build(cls, mask: Mask, rows: Counts) -> "Bitmap":
        """The mask's own bits, those of the stored rows (whole rows of tiles)."""
        tiles = mask.tiles_per_row
        block_rows = rows[:: mask.block[0]] // mask.block[0]
        bits = mask.bits
        if len(rows) < mask.shape[0]:
            bits = bit_buffer(len(block_rows) * tiles)
            number.copy_ranges(mask.bits, block_rows, tiles, bits)
        return cls(mask.block, BitRank.build(bits, len(block_rows) * tiles))

    @property
    def kernel(self) -> Any:
        """Single entries are spread by the vector, wider tiles copied."""
        return gather.gather_bitmap if self.block == (1, 1) else gather.gather_blocks

    @property
    def product_kernel(self) -> Any:
        """Either way columns are listed."""
        return multiply.multiply_bitmap if self.block == (1, 1) else multiply.multiply_blocks

    @property
    def header(self) -> Header:
        """The tile."""
        return {"block": list(self.block)}

    def tensors(self) -> Tensors:
        """Bits and counters."""
        return self.ranked.tensors("bitmap")

    def kernel_arguments(self) -> tuple[Any, ...]:
        """The tile and the masks of its sets, bits and counters."""
        block = () if self.block == (1, 1) else (*self.block, tile_masks(self.block[1]))
        return *block, self.ranked.bits, self.ranked.counters

    @classmethod
    def from_tensors(cls, header: Header, tensors: Tensors, rows: int, dim: int) -> "Bitmap":
        """Wrap the bits."""
        r, c = header["block"]
        if r < 1 or c < 1 or dim % c:
            raise ValueError(f"blocks of {r} x {c} for {dim} columns")
        return cls((r, c), BitRank.from_tensors(tensors, "bitmap", -(-rows // r) * (dim // c)))

    def row_counts(self, rows: int, dim: int) -> Counts:
        """By counting bits."""
        return Mask((rows, dim), self.block, self.ranked.bits).row_counts

    def first_number(self, row: int, dim: int) -> int:
        """By rank."""
        r, c = self.block
        tiles = dim // c
        above = self.ranked.rank(row // r * tiles)
        beside = self.ranked.rank((row // r + 1) * tiles) - above if row % r else 0
        return (above * r + beside * (row % r)) * c


@cache
def tile_masks(columns: int) -> npt.NDArray[np.uint64]:
    """The entries of each set of eight tiles of so many columns, uint64 (256,); none of tiles of more than eight."""
    if columns > 8:
        return frozen(np.zeros(0, dtype=np.uint64))
    tiles = np.arange(256)[:, None] >> np.arange(8 * columns) // columns & 1
    return frozen((tiles.astype(np.uint64) << np.arange(8 * columns, dtype=np.uint64)).sum(axis=1, dtype=np.uint64))


@dataclass(frozen=True, eq=False)
class List(Support):
    """A column number an entry: ELL when every row has as many entries, else CSR."""

    counted: Counted
    n: int
    column_bits: int
    columns: Bytes

    kind: ClassVar[str] = "list"

    @property
    def kernel(self) -> Any:
        """Numbers are scattered."""
        return gather.gather_list

    @property
    def product_kernel(self) -> Any:
        """The columns are a list."""
        return multiply.multiply_list

    @classmethod
    def build(cls, mask: Mask, rows: Counts, *, uniform: bool) -> "List":
        """Number the columns, in as few bits as hold D - 1.

        Raises:
            DataError: ``uniform`` is asked for and rows differ.
        """
        counts = mask.row_counts[rows]
        if uniform and len(counts) and counts.min() < counts.max():
            raise DataError(
                f"Rows have from {counts.min()} to {counts.max()} entries; ELL needs as many in each. Use csr."
            )
        starts = np.concatenate([[0], np.cumsum(counts)])
        columns = np.empty(int(starts[-1]), dtype=np.int64)
        number.columns_of(mask.to_elements().bits, mask.shape[1], rows, starts, columns)
        width = bits_for(mask.shape[1] - 1)
        packed = frozen(pack_integers(columns, width))
        return cls(Counted.build(counts[:, None], uniform=uniform), len(columns), width, packed)

    @property
    def header(self) -> Header:
        """Widths."""
        return {**self.counted.header, "column_bits": self.column_bits, "numbers": self.n}

    def tensors(self) -> Tensors:
        """Column numbers and counts."""
        return {"indices.columns": self.columns, **self.counted.tensors()}

    def kernel_arguments(self) -> tuple[Any, ...]:
        """Counts, then columns."""
        return *self.counted.kernel_arguments(), self.columns, self.column_bits

    @classmethod
    def from_tensors(cls, header: Header, tensors: Tensors, rows: int, dim: int) -> "List":
        """Wrap the columns."""
        counted, n, width = Counted.from_tensors(header, tensors, rows, 1, dim), header["numbers"], bits_for(dim - 1)
        if header["column_bits"] != width or n != counted.first_number(rows):
            raise ValueError(f"{header['column_bits']} bits a column of {dim}, {n} columns in {rows} rows")
        return cls(counted, n, width, stored(tensors, "indices.columns", np.uint8, buffer_bytes(n * width)))

    def row_counts(self, rows: int, dim: int) -> Counts:
        """As stored."""
        return self.counted.unpack(rows)[:, 0]

    def first_number(self, row: int, dim: int) -> int:
        """By counts."""
        return self.counted.first_number(row)


@dataclass(frozen=True, eq=False)
class Combination(Support):
    """The number of each chunk's subset of columns: as few bits as telling them apart takes."""

    counted: Counted
    width: int
    n_bits: int
    subsets: Bytes
    subset_starts: npt.NDArray[np.unsignedinteger]

    kind: ClassVar[str] = "combination"

    @property
    def kernel(self) -> Any:
        """Subsets become masks, and numbers are spread."""
        return gather.gather_combination

    @property
    def product_kernel(self) -> Any:
        """Subsets become masks, and these lists."""
        return multiply.multiply_combination

    @classmethod
    def build(cls, mask: Mask, rows: Counts) -> "Combination":
        """Number the subset of each chunk of at most 64 columns."""
        dim = mask.shape[1]
        chunks, width = chunking(dim)
        table = numbering(width)
        bits = mask.to_elements().bits
        counts = np.empty((len(rows), chunks), dtype=np.int64)
        number.chunk_counts(bits, dim, rows, width, counts)
        sizes = table.bits[counts].sum(axis=1)
        n_bits = int(sizes.sum())
        subsets = bit_buffer(n_bits)
        number.number_subsets(bits, dim, rows, chunks, width, table.bits, *table.rank_arguments, subsets)
        uniform = is_uniform(counts)
        counted = Counted.build(counts, uniform=uniform)
        return cls(counted, width, n_bits, frozen(subsets), NO_STARTS if uniform else start_array(sizes))

    @cached_property
    def _tables(self) -> tuple[Any, ...]:
        table = numbering(self.width)
        return table.bits, pair_sums(self.width, self.counted.width), *table.unrank_arguments

    @property
    def header(self) -> Header:
        """Widths."""
        return {**self.counted.header, "subset_bits": self.n_bits}

    def tensors(self) -> Tensors:
        """Subset numbers, counts and starts."""
        starts = {"indices.starts": self.subset_starts} if self.counted.width else {}
        return {"indices.subsets": self.subsets, **starts, **self.counted.tensors()}

    def kernel_arguments(self) -> tuple[Any, ...]:
        """Counts, starts, subset numbers and the tables that read them."""
        return (
            *self.counted.kernel_arguments(),
            self.subset_starts,
            self.subsets,
            self.width,
            self.n_bits,
            *self._tables,
        )

    @classmethod
    def from_tensors(cls, header: Header, tensors: Tensors, rows: int, dim: int) -> "Combination":
        """Wrap the numbers."""
        chunks, width = chunking(dim)
        counted = Counted.from_tensors(header, tensors, rows, chunks, width)
        if not int(chunks > 1) <= counted.width <= bits_for(CHUNK):
            raise ValueError(f"{counted.width} bits for a count of at most {width}, {chunks} a row")
        starts = NO_STARTS
        if counted.width:
            starts = stored(tensors, "indices.starts", np.unsignedinteger, n_starts(rows))
        subsets = stored(tensors, "indices.subsets", np.uint8, buffer_bytes(header["subset_bits"]))
        return cls(counted, width, header["subset_bits"], subsets, starts)

    def row_counts(self, rows: int, dim: int) -> Counts:
        """Sums of the chunks'."""
        counts: Counts = self.counted.unpack(rows, -(-dim // self.width)).sum(axis=1)
        return counts

    def first_number(self, row: int, dim: int) -> int:
        """By counts."""
        return self.counted.first_number(row, -(-dim // self.width))


SUPPORTS: dict[str, type[Support]] = {support.kind: support for support in (Full, Bitmap, List, Combination)}


def build_support(layout: str, mask: Mask, rows: Counts) -> Support:
    """The support of a layout, over ``rows`` of the mask."""
    if layout in ("dense", "rows"):
        return Full()
    if layout == "bitmap":
        return Bitmap.build(mask.to_elements(), rows)
    if layout == "block":
        return Bitmap.build(mask, rows)
    if layout == "combination":
        return Combination.build(mask, rows)
    return List.build(mask, rows, uniform=layout == "ell")

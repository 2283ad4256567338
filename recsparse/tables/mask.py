"""Which entries of a table are kept: one object for element, block and row granularity."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.kernels import bits as kernels
from recsparse.kernels import refine
from recsparse.tables.arrays import as_array, as_csr, check_rows, row_ids
from recsparse.tables.bits import BitRank, Bytes, bit_buffer, copy_bits, from_bools, frozen, to_bools

Counts = npt.NDArray[np.int64]
CHUNK = 1 << 22
"""Entries that are dense at one time when a mask meets a dense array."""


@dataclass(frozen=True, eq=False)
class Mask:
    """The kept entries of an R x D table, as one bit a tile.

    A tile is what is kept or dropped together: ``block`` = (1, 1) is granularity *element*, (1, D) *row*, anything
    else *block*. Tiles are numbered row after row; the last row of tiles may be cut short by R.

    Attributes:
        shape: (R, D).
        block: rows and columns of a tile; the columns divide D.
        bits: a bit buffer (see :mod:`recsparse.kernels.bits`) with a bit a tile.

    Example:
        >>> mask = Mask.from_dense(np.array([[True, False], [False, False]]))
        >>> mask.kept, mask.density, mask.row_counts.tolist()
        (1, 0.25, [1, 0])
        >>> (mask | Mask.from_rows([False, True], dim=2)).to_dense().tolist()
        [[True, False], [True, True]]
    """

    shape: tuple[int, int]
    block: tuple[int, int]
    bits: Bytes

    def __post_init__(self) -> None:
        rows, tiles = tiling(self.shape, self.block)
        if len(self.bits) != len(bit_buffer(rows * tiles)):
            raise DataError(f"{len(self.bits)} bytes of bits do not fit {self.n_tiles} tiles.")

    @classmethod
    def full(cls, shape: tuple[int, int], block: tuple[int, int] = (1, 1)) -> Self:
        """Keep everything."""
        return cls.from_tiles(np.ones(tiling(shape, block), dtype=np.bool_), shape, block)

    @classmethod
    def from_tiles(cls, tiles: npt.ArrayLike, shape: tuple[int, int], block: tuple[int, int]) -> Self:
        """From a boolean a tile, (ceil(R / r), D / c)."""
        grid = np.asarray(as_array(tiles), dtype=np.bool_)
        expected = tiling(shape, block)
        if grid.shape != expected:
            raise DataError(f"There are {grid.shape} tiles; blocks of {block} in a table of {shape} are {expected}.")
        return cls(shape, block, frozen(from_bools(grid)))

    @classmethod
    def from_dense(cls, kept: npt.ArrayLike, block: tuple[int, int] = (1, 1)) -> Self:
        """From a boolean an entry, (R, D).

        Raises:
            DataError: it is not boolean or not 2-D, or a block is kept in part.
        """
        array = as_array(kept)
        if array.ndim != 2 or array.dtype != np.bool_:
            raise DataError(f"The mask is a {array.ndim}-D array of {array.dtype}; it must be 2-D and bool.")
        shape = (array.shape[0], array.shape[1])
        tiling(shape, block)
        if block == (1, 1):
            return cls.from_tiles(array, shape, block)
        mask = cls.from_tiles(array[:: block[0], :: block[1]], shape, block)
        if not (mask.to_dense() == array).all():
            row, column = (int(i) for i in np.argwhere(mask.to_dense() != array)[0])
            raise DataError(f"The block of {block} around ({row}, {column}) is kept in part; keep or drop it whole.")
        return mask

    @classmethod
    def from_rows(cls, kept: npt.ArrayLike, dim: int) -> Self:
        """From a boolean a row, (R,)."""
        rows = np.asarray(as_array(kept), dtype=np.bool_)
        return cls.from_tiles(rows[:, None], (len(rows), dim), (1, dim))

    @classmethod
    def from_csr(cls, matrix: Any) -> Self:
        """From the pattern of a SciPy sparse matrix, explicit zeros included; never dense.

        Raises:
            DataError: the matrix is malformed.
        """
        pattern = as_csr(matrix)
        dim = pattern.shape[1]
        bits = bit_buffer(pattern.shape[0] * dim)
        refine.set_pattern(pattern.indptr, pattern.indices, dim, bits)
        return cls((pattern.shape[0], dim), (1, 1), frozen(bits))

    @classmethod
    def from_places(cls, places: npt.NDArray[np.integer], shape: tuple[int, int], block: tuple[int, int]) -> Self:
        """From the numbers of the kept tiles, row after row, each once; DataError where there is no such tile."""
        rows, tiles = tiling(shape, block)
        return cls(shape, block, _flip(bit_buffer(rows * tiles), places, rows * tiles))

    @property
    def granularity(self) -> str:
        """element, block or row."""
        if self.block == (1, 1):
            return "element"
        return "row" if self.block == (1, self.shape[1]) else "block"

    @property
    def tiles_per_row(self) -> int:
        """Tiles side by side."""
        return self.shape[1] // self.block[1]

    @property
    def n_tiles(self) -> int:
        """Tiles in all."""
        return -(-self.shape[0] // self.block[0]) * self.tiles_per_row

    @property
    def nbytes(self) -> int:
        """Bytes of the bits."""
        return self.bits.nbytes

    @cached_property
    def row_counts(self) -> Counts:
        """Kept entries a row, int64 (R,)."""
        counts = np.empty(-(-self.shape[0] // self.block[0]), dtype=np.int64)
        kernels.count_ranges(self.bits, self.tiles_per_row, counts)
        return np.repeat(counts * self.block[1], self.block[0])[: self.shape[0]]

    @cached_property
    def column_counts(self) -> Counts:
        """Kept entries a column, int64 (D,)."""
        counts = np.zeros(self.shape[1], dtype=np.int64)
        for start, stop in self.chunks():
            counts += self.dense_rows(start, stop).sum(axis=0)
        return counts

    @cached_property
    def kept(self) -> int:
        """Kept entries in all."""
        return int(self.row_counts.sum())

    @property
    def density(self) -> float:
        """Kept entries / all entries; 0 for an empty table."""
        return self.kept / max(1, self.shape[0] * self.shape[1])

    def group_densities(self, groups: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Density by group: ``groups`` gives each row's, int (R,), from 0; 0 for a group without rows."""
        group = np.asarray(as_array(groups), dtype=np.int64)
        if group.shape != (self.shape[0],):
            raise DataError(f"There are {group.shape} groups for {self.shape[0]} rows; give each row one.")
        entries = np.bincount(group) * self.shape[1]
        return np.bincount(group, weights=self.row_counts) / np.maximum(entries, 1)

    def dense_rows(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Rows ``start`` to ``stop`` as booleans, (stop - start, D); DataError where the mask does not have them."""
        check_rows(start, stop, self.shape[0], "the mask")
        r, c = self.block
        first, last = start // r, -(-stop // r)
        tiles = np.repeat(np.repeat(self.tiles(first, last), r, axis=0), c, axis=1)
        return tiles[start - first * r : stop - first * r]

    def tiles(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Rows ``start`` to ``stop`` of tiles as booleans, (stop - start, D / c)."""
        width = self.tiles_per_row
        return to_bools(self.bits, start * width, stop * width).reshape(-1, width)

    def flipped(self, places: npt.NDArray[np.integer]) -> "Mask":
        """The mask with these tiles, each numbered once, kept where they were not and dropped where they were.

        Raises:
            DataError: there is no such tile.
        """
        return Mask(self.shape, self.block, _flip(self.bits.copy(), places, self.n_tiles))

    def to_dense(self) -> npt.NDArray[np.bool_]:
        """All rows as booleans, (R, D)."""
        return self.dense_rows(0, self.shape[0])

    def chunks(self) -> list[tuple[int, int]]:
        """Ranges of rows small enough to be dense for a moment."""
        step = max(1, CHUNK // self.shape[1])
        return [(start, min(start + step, self.shape[0])) for start in range(0, self.shape[0], step)]

    def to_elements(self) -> "Mask":
        """The same entries at granularity element; through the bits, never dense."""
        if self.block == (1, 1):
            return self
        bits = bit_buffer(self.shape[0] * self.shape[1])
        refine.refine_bits(self.bits, *self.shape, *self.block, bits)
        return Mask(self.shape, (1, 1), frozen(bits))

    def to_csr(self) -> sp.csr_array:
        """The pattern as a SciPy CSR of ones (bool)."""
        indptr = np.concatenate([[0], np.cumsum(self.row_counts)])
        return sp.csr_array((np.ones(self.kept, dtype=np.bool_), self.columns(), indptr), shape=self.shape)

    def columns(self) -> npt.NDArray[np.int32]:
        """The column of each kept entry, row after row, int32 (kept,)."""
        elements = self.to_elements()
        flat = BitRank.build(elements.bits, elements.n_tiles).positions()
        return (flat % self.shape[1]).astype(np.int32)

    def select_rows(self, start: int, stop: int) -> "Mask":
        """Rows ``start`` to ``stop``; blocks of several rows become elements unless ``start`` is on their edge.

        Raises:
            DataError: the mask does not have those rows.
        """
        check_rows(start, stop, self.shape[0], "the mask")
        if (start, stop) == (0, self.shape[0]):
            return self
        if start % self.block[0]:
            return self.to_elements().select_rows(start, stop)
        shape, first = (stop - start, self.shape[1]), start // self.block[0]
        tiles = (-(-stop // self.block[0]) - first) * self.tiles_per_row
        return Mask(shape, self.block, copy_bits(self.bits, first * self.tiles_per_row, tiles))

    def __or__(self, other: "Mask") -> "Mask":
        """Entries kept by either."""
        return self._combine(other, np.bitwise_or)

    def __and__(self, other: "Mask") -> "Mask":
        """Entries kept by both."""
        return self._combine(other, np.bitwise_and)

    def __eq__(self, other: object) -> bool:
        """Whether the same entries are kept, whatever the blocks."""
        if not isinstance(other, Mask) or self.shape != other.shape:
            return False
        return bool((self.to_elements().bits == other.to_elements().bits).all())

    __hash__ = None  # type: ignore[assignment]

    def _combine(self, other: "Mask", operation: np.ufunc) -> "Mask":
        if self.shape != other.shape:
            raise DataError(f"The masks have shapes {self.shape} and {other.shape}; combine masks of one table.")
        if self.block == other.block:
            return Mask(self.shape, self.block, frozen(operation(self.bits, other.bits)))
        return self.to_elements()._combine(other.to_elements(), operation)


def _flip(bits: Bytes, places: npt.NDArray[np.integer], n_tiles: int) -> Bytes:
    """Turn the bits of these tiles over, in place."""
    tiles = row_ids(places)
    low, high = int(tiles.min(initial=0)), int(tiles.max(initial=-1))
    if low < 0 or high >= n_tiles:
        raise DataError(f"Tile {low if low < 0 else high} was asked for; the mask has {n_tiles}, numbered from 0.")
    kernels.flip(bits, tiles)
    return frozen(bits)


def tiling(shape: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """Rows of tiles, and tiles side by side.

    Raises:
        DataError: the table has no column, or the block does not fit it.
    """
    rows, dim = shape
    if rows < 0 or dim < 1:
        raise DataError(f"The mask's shape is {shape}; it needs at least one column.")
    if block[0] < 1 or block[1] < 1 or dim % block[1]:
        raise DataError(f"Blocks of {block} do not tile {dim} columns; the columns of a block must divide it.")
    return -(-rows // block[0]), dim // block[1]

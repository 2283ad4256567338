"""Bits of masks: tiles into entries, and patterns into bits."""

import numba as nb
import numpy as np

from recsparse.kernels.bits import read_bits


@nb.njit(nogil=True, cache=True)
def refine_bits(bits, rows, dim, block_rows, block_columns, out):  # type: ignore[no-untyped-def]
    """Set in the zeroed ``out`` the bit of each entry whose tile's bit is set."""
    tiles = dim // block_columns
    for row in range(rows):
        first = (row // block_rows) * tiles
        for tile in range(tiles):
            if read_bits(bits, first + tile, 1):
                for at in range(row * dim + tile * block_columns, row * dim + (tile + 1) * block_columns):
                    out[at >> 3] |= np.uint8(1 << (at & 7))


@nb.njit(nogil=True, cache=True)
def set_pattern(indptr, indices, dim, out):  # type: ignore[no-untyped-def]
    """Set in the zeroed ``out`` the bits of a CSR pattern."""
    for row in range(len(indptr) - 1):
        for i in range(indptr[row], indptr[row + 1]):
            at = np.int64(row) * dim + indices[i]
            out[at >> 3] |= np.uint8(1 << (at & 7))

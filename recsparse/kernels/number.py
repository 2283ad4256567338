"""Masks -> what supports store: column numbers, and subset numbers."""

import numba as nb
import numpy as np

from recsparse.kernels.bits import popcount, read_bits, read_word, trailing_zeros
from recsparse.kernels.combinations import rank_subset


@nb.njit(nogil=True, cache=True)
def columns_of(bits, dim, rows, starts, out):  # type: ignore[no-untyped-def]
    """Fill ``out[starts[i]:]`` with the columns of the ones of row ``rows[i]`` of an element bitmap."""
    for i in range(len(rows)):
        to = starts[i]
        for column in range(0, dim, 32):
            word = read_bits(bits, rows[i] * dim + column, min(32, dim - column))
            while word != 0:
                out[to] = column + trailing_zeros(word)
                to += 1
                word &= word - np.uint64(1)


@nb.njit(nogil=True, cache=True)
def chunk_counts(bits, dim, rows, width, out):  # type: ignore[no-untyped-def]
    """Fill ``out[i, c]`` with the ones in chunk ``c`` of row ``rows[i]``."""
    for i in range(len(rows)):
        for chunk in range(out.shape[1]):
            column = chunk * width
            out[i, chunk] = popcount(read_word(bits, rows[i] * dim + column, min(width, dim - column)))


@nb.njit(nogil=True, cache=True)
def number_subsets(  # type: ignore[no-untyped-def]
    bits, dim, rows, chunks, width, subset_bits, whole, whole_choose, halves, half_choose, numbers, out
):
    """Write each chunk's subset number, one after the other, into the zeroed bit buffer ``out``."""
    at = 0
    for i in range(len(rows)):
        for chunk in range(chunks):
            column = chunk * width
            word = read_word(bits, rows[i] * dim + column, min(width, dim - column))
            number = rank_subset(word, whole, whole_choose, halves, half_choose, numbers)
            left = subset_bits[popcount(word)]
            while left > 0:
                room = min(8 - (at & 7), left)
                part = number & ((np.uint64(1) << np.uint64(room)) - np.uint64(1))
                out[at >> 3] |= np.uint8(part << np.uint64(at & 7))
                number >>= np.uint64(room)
                at += room
                left -= room


@nb.njit(nogil=True, cache=True)
def copy_ranges(bits, rows, width, out):  # type: ignore[no-untyped-def]
    """Copy the ``width`` bits of each of ``rows`` into the zeroed ``out``, one after the other."""
    for i in range(len(rows)):
        for j in range(width):
            to = i * width + j
            out[to >> 3] |= np.uint8(read_bits(bits, rows[i] * width + j, 1) << np.uint64(to & 7))

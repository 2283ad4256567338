"""Weighted sums of rows."""

import numba as nb
import numpy as np

from recsparse.kernels.bits import read, write
from recsparse.kernels.vector import LANES, NARROW, lowest_bit, nonzero, weighted_sum, weighted_sum_narrow


@nb.njit(nogil=True, cache=True)
def add_segments(rows, weights, ends, first, out):  # type: ignore[no-untyped-def]
    """Add ``weights[i] * rows[i]`` to the bag that number ``first + i`` is in; ``ends`` (bags + 1,) bounds them."""
    bag = np.searchsorted(ends, first, side="right") - 1
    for i in range(len(rows)):
        while ends[bag + 1] <= first + i:
            bag += 1
        weight = weights[i]
        for column in range(rows.shape[1]):
            out[bag, column] += weight * rows[i, column]


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def multiply_nonzero(left, rows, width, right, dim, columns, out):  # type: ignore[no-untyped-def]
    """Matrix product of a mostly zero ``left`` (rows, width) and ``right`` (width, dim) into ``out``, all flat.

    ``left`` ends in ``LANES`` numbers that do not count; ``columns`` (width,) is room to note where a row's are.
    """
    for row in range(rows):
        at = row * width
        n = 0
        for first in range(0, width, LANES):
            found = nonzero(left, at + first)
            if first + LANES > width:
                found &= (np.uint64(1) << np.uint64(width - first)) - np.uint64(1)
            while found != 0:
                columns[np.uint64(n)] = first + np.int64(lowest_bit(found))
                found &= found - np.uint64(1)
                n += 1
        to = row * dim
        column = 0
        while column + LANES <= dim:
            weighted_sum(left, at, columns, n, right, dim, column, out, to + column)
            column += LANES
        while column + NARROW <= dim:
            weighted_sum_narrow(left, at, columns, n, right, dim, column, out, to + column)
            column += NARROW
        while column < dim:
            total = np.float32(0)
            for i in range(n):
                place = columns[np.uint64(i)]
                total += read(left, at + place) * read(right, place * dim + column)
            write(out, to + column, total)
            column += 1


@nb.njit(nogil=True, cache=True)
def sum_rows(rows, indptr, columns, weights, vectors, places, out):  # type: ignore[no-untyped-def]
    """Fill ``out[places[i]]`` with row ``rows[i]`` of a CSR matrix times ``vectors``; only those rows are read.

    Returns how many entries lead outside, which a damaged file can cause; they are left out.
    """
    outside = 0
    for i in range(len(rows)):
        total = out[places[i]]
        total[:] = 0
        start, stop = np.int64(indptr[rows[i]]), np.int64(indptr[rows[i] + 1])
        if start > stop or stop > len(columns):
            outside += 1
            continue
        for at in range(start, stop):
            if columns[at] >= len(vectors):
                outside += 1
                continue
            weight, vector = weights[at], vectors[columns[at]]
            for column in range(len(total)):
                total[column] += weight * vector[column]
    return outside

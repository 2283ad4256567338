"""Weighted sums of rows."""

import numba as nb
import numpy as np


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

"""Sums over bags of rows."""

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

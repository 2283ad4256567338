"""Sums over bags of rows, and the best rows so far of a stream of score blocks."""

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
def merge_top(scores, first, indptr, indices, at, out_rows, out_scores):  # type: ignore[no-untyped-def]
    """Merge a block of scores, of rows from ``first`` on, into the best so far.

    ``at`` remembers, for each query, how far its sorted excluded ``indices`` were read.
    """
    k = out_rows.shape[1]
    for query in range(scores.shape[0]):
        seen = at[query]
        end = indptr[query + 1]
        best = out_scores[query]
        rows = out_rows[query]
        for j in range(scores.shape[1]):
            row = first + j
            if seen < end and indices[seen] == row:
                seen += 1
                continue
            score = scores[query, j]
            if score > best[k - 1] or (rows[k - 1] < 0 and score == -np.inf):
                place = k - 1
                while place > 0 and (rows[place - 1] < 0 or best[place - 1] < score):
                    best[place] = best[place - 1]
                    rows[place] = rows[place - 1]
                    place -= 1
                best[place] = score
                rows[place] = row
        at[query] = seen

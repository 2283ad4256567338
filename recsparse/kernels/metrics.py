"""The rank of every target among all the items a user has not seen: what each ranking metric is made of."""

import numba as nb
import numpy as np

NAN_SCORE, SEEN_TARGET = 1, 2
"""What can be wrong with a row: one of its scores is NaN; one of its targets was seen."""

_CHUNK = 4096
"""Items counted in float32 before the count goes to int64: exact, and 8 or 16 comparisons an instruction."""

_counting = nb.njit(nogil=True, cache=True, fastmath={"reassoc"}, boundscheck=False)


@_counting
def _above(scores, target):  # type: ignore[no-untyped-def]
    count = np.float32(0.0)
    for item in range(len(scores)):
        count += np.float32(1.0) if scores[item] > target else np.float32(0.0)
    return np.int64(count)


@_counting
def _not_below(scores, target):  # type: ignore[no-untyped-def]
    count = np.float32(0.0)
    for item in range(len(scores)):
        count += np.float32(1.0) if scores[item] >= target else np.float32(0.0)
    return np.int64(count)


@_counting
def _copy(scores, out):  # type: ignore[no-untyped-def]
    """Copy, and count what is not a number, in one pass over memory."""
    count = np.float32(0.0)
    for item in range(len(scores)):
        out[item] = scores[item]
        count += np.float32(1.0) if scores[item] != scores[item] else np.float32(0.0)
    return np.int64(count)


@nb.njit(nogil=True, cache=True, boundscheck=False)
def target_ranks(  # type: ignore[no-untyped-def]
    scores, seen_indptr, seen, target_indptr, targets, out_items, out_ranks, out_wrong, start, stop
):
    """Rank from 1 the ``targets`` of rows ``start:stop`` among all items but the ``seen``, best first.

    Ties go to the lower item: a target stands behind the items before it that score no less, and those after it that
    score more. Where ``out_wrong[row]`` is not 0, the row's ranks mean nothing.
    """
    n_items = scores.shape[1]
    left = np.empty(n_items, dtype=np.float32)
    for row in range(start, stop):
        first, last = target_indptr[row], target_indptr[row + 1]
        out_wrong[row] = 0
        for chunk in range(0, n_items, _CHUNK):
            if _copy(scores[row, chunk : chunk + _CHUNK], left[chunk : chunk + _CHUNK]) > 0:
                out_wrong[row] = NAN_SCORE
        for at in range(seen_indptr[row], seen_indptr[row + 1]):
            left[seen[at]] = np.nan  # neither above, below nor equal to anything
        for at in range(first, last):
            item = targets[at]
            score = left[item]
            if np.isnan(score) and out_wrong[row] == 0:
                out_wrong[row] = SEEN_TARGET
            rank = 1
            for chunk in range(0, item, _CHUNK):
                rank += _not_below(left[chunk : min(chunk + _CHUNK, item)], score)
            for chunk in range(item + 1, n_items, _CHUNK):
                rank += _above(left[chunk : chunk + _CHUNK], score)
            place = at
            while place > first and out_ranks[place - 1] > rank:
                out_ranks[place] = out_ranks[place - 1]
                out_items[place] = out_items[place - 1]
                place -= 1
            out_ranks[place] = rank
            out_items[place] = item


@nb.njit(nogil=True, cache=True, boundscheck=False)
def shared_entries(indptr, indices, rows, other_indptr, other_indices, out_shared):  # type: ignore[no-untyped-def]
    """Count what row ``rows[r]`` (-1: none) of one CSR shares with row ``r`` of another; items ascend in both."""
    for row in range(len(rows)):
        out_shared[row] = 0
        if rows[row] < 0:
            continue
        at, end = indptr[rows[row]], indptr[rows[row] + 1]
        for other in range(other_indptr[row], other_indptr[row + 1]):
            while at < end and indices[at] < other_indices[other]:
                at += 1
            if at < end and indices[at] == other_indices[other]:
                out_shared[row] += 1

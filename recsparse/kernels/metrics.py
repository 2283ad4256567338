"""The rank of every target among all the items a user has not seen: what each ranking metric is made of."""

import numba as nb
import numpy as np

from recsparse.kernels.lanes import LANES, compress

NAN_SCORE, SEEN_TARGET = 1, 2
"""What can be wrong with a row: one of its scores is NaN; one of its targets was seen."""


@nb.njit(nogil=True, cache=True, boundscheck=False)
def _count(scores, target):  # type: ignore[no-untyped-def]
    """How many scores are above the target's, and how many at or above; in int32, so that it vectorises."""
    above, level = np.int32(0), np.int32(0)
    for item in range(len(scores)):
        above = np.int32(above + np.int32(scores[item] > target))
        level = np.int32(level + np.int32(scores[item] >= target))
    return np.int64(above), np.int64(level)


@nb.njit(nogil=True, cache=True, boundscheck=False)
def _not_below(scores, least, out):  # type: ignore[no-untyped-def]
    """Write the scores that are not below ``least`` to ``out``, NaN among them; give how many there are."""
    n, kept = len(scores), 0
    for item in range(0, n - LANES + 1, LANES):
        kept += compress(scores, item, least, out, kept)
    for item in range(n - n % LANES, n):
        out[kept] = scores[item]
        kept += not scores[item] < least
    return kept


@nb.njit(nogil=True, cache=True, boundscheck=False)
def target_ranks(  # type: ignore[no-untyped-def]
    scores, seen_indptr, seen, target_indptr, targets, out_items, out_ranks, out_ties, out_wrong, start, stop
):
    """Rank from 1 the ``targets`` of rows ``start:stop`` among all items but the ``seen``, best first; items ascend.

    A target's rank is one more than the items that score above it; its ties are the items that score as it does, itself
    included. Targets of equal rank stand by item. What scores below a row's worst target decides nothing, so it is put
    aside in one pass; the rest is compared with every target, and so are the seen, whose counts are taken off.

    Where ``out_wrong[row]`` is not 0, the row's ranks mean nothing. Rows without targets are not looked at.
    """
    left = np.empty(scores.shape[1], dtype=np.float32)
    known = np.empty(scores.shape[1], dtype=np.float32)
    for row in range(start, stop):
        out_wrong[row] = 0
        first, last = target_indptr[row], target_indptr[row + 1]
        if first == last:
            continue
        worst = scores[row, targets[first]]
        for at in range(first, last):
            worst = min(worst, scores[row, targets[at]])
        n_left = _not_below(scores[row], worst, left)
        n_known, at = 0, first
        for place in range(seen_indptr[row], seen_indptr[row + 1]):
            known[n_known] = scores[row, seen[place]]
            n_known += not known[n_known] < worst
            while at < last and targets[at] < seen[place]:
                at += 1
            if at < last and targets[at] == seen[place]:
                out_wrong[row] = SEEN_TARGET
        numbers = 0
        for at in range(first, last):
            item = targets[at]
            above, level = _count(left[:n_left], scores[row, item])
            numbers = max(numbers, level)
            known_above, known_level = _count(known[:n_known], scores[row, item])
            above, level = above - known_above, level - known_level
            place = at
            while place > first and out_ranks[place - 1] > above + 1:
                out_ranks[place] = out_ranks[place - 1]
                out_ties[place] = out_ties[place - 1]
                out_items[place] = out_items[place - 1]
                place -= 1
            out_ranks[place] = above + 1
            out_ties[place] = level - above
            out_items[place] = item
        if numbers < n_left:  # the worst target reaches all that is left but NaN
            out_wrong[row] = NAN_SCORE


@nb.njit(nogil=True, cache=True)
def first_hits(ranks, ties, targets, cut_off, out_hit, out_reciprocal):  # type: ignore[no-untyped-def]
    """Each user's expected hit and reciprocal rank at a cut-off, ties standing in random order.

    ``targets[u]`` of the ``ties[u]`` items from rank ``ranks[u]`` on are the user's best targets: given that the places
    before do not hold one, a place does with probability targets / places left.
    """
    for user in range(len(ranks)):
        missed, reciprocal = 1.0, 0.0
        for before in range(min(ties[user] - targets[user] + 1, cut_off - ranks[user] + 1)):
            found = missed * targets[user] / (ties[user] - before)
            reciprocal += found / (ranks[user] + before)
            missed -= found
        out_hit[user] = 1.0 - missed
        out_reciprocal[user] = reciprocal


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

"""Ranks of targets when scores come a block of items at a time."""

import numba as nb
import numpy as np


@nb.njit(nogil=True, cache=True)
def take_target_scores(start, stop, scores, first, target_ptr, targets, target_scores):  # type: ignore[no-untyped-def]
    """Note the scores of those targets that lie in the block of items from ``first``; scores are (users, block)."""
    last = first + scores.shape[1]
    for user in range(start, stop):
        for entry in range(target_ptr[user], target_ptr[user + 1]):
            if first <= targets[entry] < last:
                target_scores[entry] = scores[user, targets[entry] - first]


@nb.njit(nogil=True, cache=True)
def count_above(  # type: ignore[no-untyped-def]
    start, stop, scores, first, seen_ptr, seen, target_ptr, target_scores, above, ties
):
    """Add the unseen items of the block that score above each target, and to ``ties`` those that score as it does."""
    last = first + scores.shape[1]
    for user in range(start, stop):
        at = seen_ptr[user] + np.searchsorted(seen[seen_ptr[user] : seen_ptr[user + 1]], first)
        for item in range(first, last):
            if at < seen_ptr[user + 1] and seen[at] == item:
                at += 1
                continue
            score = scores[user, item - first]
            for entry in range(target_ptr[user], target_ptr[user + 1]):
                above[entry] += score > target_scores[entry]
                ties[entry] += score == target_scores[entry]

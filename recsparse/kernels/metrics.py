"""The rank of every target among all the items a user has not seen: what each ranking metric is made of."""

import numba as nb
import numpy as np

_CHUNK = 4096
"""Items counted in float32 before the count goes to int64: exact, and eight comparisons an instruction."""


@nb.njit(nogil=True, cache=True, fastmath={"reassoc"}, boundscheck=False)
def _beaten_by(scores, target, start, stop):  # type: ignore[no-untyped-def]
    """Count the items of ``scores[start:stop]`` above the score ``target``, and those equal to it."""
    above = np.float32(0.0)
    equal = np.float32(0.0)
    for item in range(start, stop):
        above += np.float32(1.0) if scores[item] > target else np.float32(0.0)
        equal += np.float32(1.0) if scores[item] == target else np.float32(0.0)
    return np.int64(above), np.int64(equal)


@nb.njit(nogil=True, cache=True)
def target_ranks(  # type: ignore[no-untyped-def]
    scores, seen_indptr, seen, target_indptr, targets, out_ranks, out_bad, start, stop
):
    """Rank from 1 the ``targets`` of rows ``start:stop`` among all items but the ``seen``; ties to the lower item.

    ``out_bad[row]`` becomes true where a score is NaN; its ranks mean nothing. A target that is also seen is the
    caller's mistake and is not looked for here.
    """
    n_items = scores.shape[1]
    left = np.empty(n_items, dtype=np.float32)
    for row in range(start, stop):
        not_a_number = 0
        for item in range(n_items):
            left[item] = scores[row, item]
            not_a_number += left[item] != left[item]
        out_bad[row] = not_a_number > 0
        for at in range(seen_indptr[row], seen_indptr[row + 1]):
            left[seen[at]] = np.nan  # neither above nor equal to anything
        for at in range(target_indptr[row], target_indptr[row + 1]):
            score = left[targets[at]]
            above = 0
            equal = 0
            for chunk in range(0, n_items, _CHUNK):
                chunk_above, chunk_equal = _beaten_by(left, score, chunk, min(chunk + _CHUNK, n_items))
                above += chunk_above
                equal += chunk_equal
            if equal > 1:
                for item in range(targets[at]):
                    above += left[item] == score
            out_ranks[at] = above + 1

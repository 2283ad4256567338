"""Exact selection of the best K items a row, seen items left out."""

import numba as nb
import numpy as np
import numpy.typing as npt

NO_ITEM = -1
"""Stands where fewer than K items remain; its score is -inf."""


@nb.njit(nogil=True, cache=True)
def top_k_rows(scores, indptr, indices, out_items, out_scores):  # type: ignore[no-untyped-def]
    """Select per row of ``scores``, skipping that row's sorted ``indices``; ties go to the lower item row."""
    n_items = scores.shape[1]
    k = out_items.shape[1]
    for row in range(scores.shape[0]):
        best_items = out_items[row]
        best_scores = out_scores[row]
        best_items[:] = NO_ITEM
        best_scores[:] = -np.inf
        taken = 0
        seen = indptr[row]
        end = indptr[row + 1]
        for item in range(n_items):
            if seen < end and indices[seen] == item:
                seen += 1
                continue
            score = scores[row, item]
            if score > best_scores[k - 1] or (taken < k and score == -np.inf):
                at = min(taken, k - 1)
                while at > 0 and best_scores[at - 1] < score:
                    best_scores[at] = best_scores[at - 1]
                    best_items[at] = best_items[at - 1]
                    at -= 1
                best_scores[at] = score
                best_items[at] = item
                taken = min(taken + 1, k)


def top_k(
    scores: npt.NDArray[np.float32], k: int, indptr: npt.NDArray[np.integer], indices: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The ``k`` best items of each row, best first, leaving out the row's items in a CSR pattern.

    Args:
        scores: (B, I) float32.
        k: how many; where fewer remain, the rest is item -1 with score -inf.
        indptr: (B + 1,), with ``indices`` the CSR of items to leave out, ascending within a row.
        indices: item rows.

    Returns:
        Items (B, k) int32 and scores (B, k) float32. Ties: the lower item row first.

    Example:
        >>> scores = np.array([[0.1, 0.9, 0.5]], dtype=np.float32)
        >>> top_k(scores, 2, np.array([0, 1]), np.array([1]))[0]
        array([[2, 0]], dtype=int32)
    """
    items = np.empty((len(scores), k), dtype=np.int32)
    values = np.empty((len(scores), k), dtype=np.float32)
    top_k_rows(scores, indptr, indices, items, values)
    return items, values

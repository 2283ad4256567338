"""At most so many items of a category in a list."""

import numba as nb
import numpy as np

from recsparse.kernels.topk import NO_ITEM


@nb.njit(nogil=True, cache=True)
def cap_rows(items, scores, categories, cap, out_items, out_scores):  # type: ignore[no-untyped-def]
    """Copy each row's items in order, at most ``cap`` of each category, until ``out_items`` is full.

    ``categories`` gives each item's, -1 for one that is not counted. Returns how many of a row were copied, (B,).
    """
    counts = np.zeros(categories.max() + 1 if len(categories) else 0, dtype=np.int64)
    filled = np.zeros(len(items), dtype=np.int64)
    for row in range(len(items)):
        at = 0
        counts[:] = 0
        for column in range(items.shape[1]):
            item = items[row, column]
            if item == NO_ITEM or at == out_items.shape[1]:
                break
            category = categories[item]
            if category >= 0:
                if counts[category] == cap:
                    continue
                counts[category] += 1
            out_items[row, at] = item
            out_scores[row, at] = scores[row, column]
            at += 1
        filled[row] = at
        out_items[row, at:] = NO_ITEM
        out_scores[row, at:] = -np.inf
    return filled

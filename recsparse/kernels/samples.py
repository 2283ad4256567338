"""Training samples of consecutive users: known pairs in a given order, each with drawn negatives.

Draws are counter-based (splitmix64 of a seed and the pair's number in the epoch), so they are the same however the
pairs are spread over processes.
"""

import numba as nb
import numpy as np

from recsparse.kernels.negatives import TRIES, below, mix

_STEP = np.uint64(0x9E3779B97F4A7C15)


@nb.njit(nogil=True, cache=True, inline="always")
def _has(items, low, end, item):  # type: ignore[no-untyped-def]
    high = end
    while low < high:
        middle = (low + high) >> 1
        if items[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low < end and items[low] == item


@nb.njit(nogil=True, cache=True)
def draw_samples(  # type: ignore[no-untyped-def]
    order, start, stop, first, user_of, ptr, known, n_items, drawable, negatives, seed, place, users, items
):
    """Write samples of entries ``order[start:stop]``: the user's row, the known item and its negatives.

    Args:
        order: entries in the order of the epoch.
        start: the first to write.
        stop: the first not to write.
        first: row of the first user.
        user_of: each entry's user, from 0.
        ptr: with ``known`` the CSR of what each user has, ascending.
        known: item rows.
        n_items: negatives are drawn uniformly from 0 .. n_items - 1, never one the user has.
        drawable: or from these item rows only; empty for all.
        negatives: how many a sample.
        seed: uint64, another one each epoch.
        place: number in the epoch of ``order[0]``.
        users: (stop - start,) int64, written.
        items: (stop - start, 1 + negatives) int64, written, the known item first.

    Returns:
        The number of samples written: one is left out when 16 draws find nothing that the user does not have.
    """
    n = 0
    for at in range(start, stop):
        entry = order[at]
        user = user_of[entry]
        items[n, 0] = known[entry]
        found = 0
        for other in range(negatives):
            word = mix((seed + np.uint64((place + at) * negatives + other)) * _STEP)
            for _ in range(TRIES):
                item = drawable[below(word, len(drawable))] if len(drawable) else below(word, n_items)
                if not _has(known, ptr[user], ptr[user + 1], item):
                    found += 1
                    items[n, found] = item
                    break
                word = mix(word + _STEP)
        if found == negatives:
            users[n] = first + user
            n += 1
    return n

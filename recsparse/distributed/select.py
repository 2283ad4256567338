"""The exact k best of scores spread over ranks, without gathering them: a radix search on their bits."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from recsparse.distributed.process import total

Keys = npt.NDArray[np.uint64]
Sum = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]

_DIGIT = 16


def over_ranks(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sum over ranks."""
    return total(torch.from_numpy(counts)).numpy()


def on_each_rank(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """No sum: every rank has all scores (a table that is a copy)."""
    return counts


def select_best(
    scores: npt.NDArray[np.floating], places: npt.NDArray[np.int64], k: int, add: Sum = over_ranks
) -> npt.NDArray[np.bool_]:
    """Which of this rank's scores are among the ``k`` highest of all above -inf; ties go to the lower place.

    Exactly ``k`` are chosen over all ranks, ties included, or all above -inf where these are fewer. Traffic: 8 counts
    of 2^16 bins, whatever the number of scores.

    Args:
        scores: this rank's, (n,); not NaN.
        places: their numbers in the whole, (n,) int64, not negative.
        k: how many, over all ranks.
        add: sums counts over ranks.
    """
    finite = scores > -np.inf
    k = min(k, int(add(np.array([finite.sum()], dtype=np.int64))[0]))
    if k <= 0:
        return np.zeros(len(scores), dtype=np.bool_)
    keys = _ascending(-scores.astype(np.float64))
    threshold, below = kth_smallest(keys, k, add)
    chosen = keys < threshold
    ties = np.flatnonzero(keys == threshold)
    last, _ = kth_smallest(places[ties].astype(np.uint64), k - below, add)
    chosen[ties[places[ties].astype(np.uint64) <= last]] = True
    return chosen


def kth_smallest(keys: Keys, k: int, add: Sum = over_ranks) -> tuple[np.uint64, int]:
    """The ``k``-th smallest key (from 1) over all ranks, and how many are below it.

    Example:
        >>> kth_smallest(np.array([5, 3, 3, 9], dtype=np.uint64), 3, on_each_rank)
        (np.uint64(5), 2)
    """
    prefix, below = np.uint64(0), 0
    candidates = keys
    for shift in range(64 - _DIGIT, -1, -_DIGIT):
        digits = ((candidates >> np.uint64(shift)) & np.uint64((1 << _DIGIT) - 1)).astype(np.int64)
        counts = np.cumsum(add(np.bincount(digits, minlength=1 << _DIGIT)))
        digit = int(np.searchsorted(counts, k - below))
        below += int(counts[digit - 1]) if digit else 0
        candidates = candidates[digits == digit]
        prefix |= np.uint64(digit) << np.uint64(shift)
    return prefix, below


def _ascending(values: npt.NDArray[np.float64]) -> Keys:
    """Unsigned integers in the order of the floats."""
    bits = (values + 0.0).view(np.int64)  # + 0.0 makes -0.0 and 0.0 one
    return np.where(bits < 0, ~bits, bits ^ np.int64(-(2**63))).view(np.uint64)

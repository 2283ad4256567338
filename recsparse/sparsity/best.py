"""The places of the highest scores: of all scores at once, or of scores seen a piece at a time."""

from typing import Any

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating[Any]]

_AT_ONCE = 1 << 12
"""Scores turned into keys together."""


def best(scores: Scores, budget: int) -> npt.NDArray[np.int64]:
    """Positions of the ``budget`` highest scores above -inf; ties go to the lower position. O(n)."""
    budget = min(budget, int(np.count_nonzero(scores > -np.inf)))
    if budget <= 0:
        return np.empty(0, dtype=np.int64)
    threshold = np.partition(scores, len(scores) - budget)[len(scores) - budget]
    above = np.flatnonzero(scores > threshold)
    ties = np.flatnonzero(scores == threshold)
    return np.concatenate([above, ties[: budget - len(above)]])


class Leaders:
    """The highest scores of many that are seen a piece at a time, and where they were; ties go to the lower place.

    A score and its place share 64 bits whose order is theirs, so that nothing but these is kept: 8 bytes for each of
    the ``budget`` highest, and room for a quarter more.

    Example:
        >>> leaders = Leaders(2)
        >>> leaders.add(np.array([1.0, 3.0]), 0)
        >>> leaders.add(np.array([-2.0, 3.0, 3.0]), 2)
        >>> leaders.places()
        array([1, 3], dtype=uint32)
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._keys = np.empty(budget + max(budget // 4, 1), dtype=np.uint64)
        self._n = 0

    def add(self, scores: Scores, first: int) -> None:
        """Look at scores whose places are ``first`` and so on; those of -inf do not count."""
        for start in range(0, len(scores) if self._budget else 0, _AT_ONCE):
            self._add(scores[start : start + _AT_ONCE], first + start)

    def _add(self, scores: Scores, first: int) -> None:
        bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 is no less than 0
        keys = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64) << np.uint64(32)
        keys |= np.arange(first, first + len(scores), dtype=np.uint32) ^ np.uint32(0xFFFFFFFF)
        keys = keys[scores > -np.inf]
        while len(keys):
            if self._n == len(self._keys):
                self._settle()
                keys = keys[keys > self._keys[0]]
            taken = min(len(keys), len(self._keys) - self._n)
            self._keys[self._n : self._n + taken] = keys[:taken]
            self._n += taken
            keys = keys[taken:]

    def places(self) -> npt.NDArray[np.uint32]:
        """Where the highest are, ascending."""
        self._settle()
        places = np.uint32(0xFFFFFFFF) ^ self._keys[: self._n].astype(np.uint32)
        places.sort()
        return places

    def _settle(self) -> None:
        """Bring the highest to the front, the lowest of them first."""
        if self._n > self._budget:
            keys = self._keys[: self._n]
            keys.partition(self._n - self._budget)
            keys[: self._budget] = keys[self._n - self._budget :].copy()
            self._n = self._budget

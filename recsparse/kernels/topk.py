"""Exact selection of the best K items a row, over score tiles that need never exist all at once.

A row's state is a buffer of candidates and a threshold: a score at or below it cannot be among the best K. Nearly all
of a tile is dismissed 64 scores at a time, so that selection costs a fraction of the matrix product that made the tile.
A candidate is one int64: the score's bits, mapped to order as integers do, above the complement of the item row.
Integer order is then the order of the result: higher scores first, ties to the lower item row.
"""

from dataclasses import dataclass
from typing import Self

import numba as nb
import numpy as np
import numpy.typing as npt

from recsparse.errors import DataError
from recsparse.kernels.vector import LANES, above, bits_of, float_of, lowest_bit, raise_to

Floats = npt.NDArray[np.float32]
Items = npt.NDArray[np.int32]
Integers = npt.NDArray[np.integer]

NO_ITEM = -1
"""Stands where fewer than K items remain; its score is -inf."""

_LOW = 0xFFFFFFFF
_BLOCK = 256
_SORTED = 1024
"""Candidates from which sorting them takes less time than counting, for each, those that are better."""


@nb.njit(nogil=True, cache=True)
def _key(score, item):  # type: ignore[no-untyped-def]
    order = np.int64(bits_of(score))
    if order < 0:
        order = -(order & 0x7FFFFFFF)  # sign and magnitude to two's complement; -0 and +0 become one
    return (order << 32) | (_LOW - np.int64(item))


@nb.njit(nogil=True, cache=True)
def _score(key):  # type: ignore[no-untyped-def]
    order = key >> 32
    return float_of(np.int32(order if order >= 0 else -order - 0x80000000))


@nb.njit(nogil=True, cache=True)
def _count_from(keys, limit):  # type: ignore[no-untyped-def]
    count = np.int64(0)
    for i in range(len(keys)):
        count += np.int64(keys[i] >= limit)
    return count


@nb.njit(nogil=True, cache=True)
def _limit(keys, k, at_most):  # type: ignore[no-untyped-def]
    """Give a limit that at least ``k`` and at most ``at_most`` of the distinct ``keys`` reach.

    Bisection by counting: a quickselect's branches would be mispredicted, a count is a few vector instructions.
    """
    low = high = keys[0]
    for i in range(len(keys)):
        low, high = min(low, keys[i]), max(high, keys[i])
    while low < high:
        middle = (low | high) - ((low ^ high) >> 1)  # the mean, rounded up, without overflow
        count = _count_from(keys, middle)
        if count < k:
            high = middle - 1
        else:
            low = middle
            if count <= at_most:
                break
    return low


@nb.njit(nogil=True, cache=True)
def _keep_from(keys, count, limit):  # type: ignore[no-untyped-def]
    """Move those of ``keys[:count]`` that reach the limit to the front, in their order; give how many there are."""
    kept = 0
    for i in range(count):
        keys[kept] = keys[i]
        kept += np.int64(keys[i] >= limit)
    return kept


@nb.njit(nogil=True, cache=True)
def _lower_bound(row, k, maxima, keys):  # type: ignore[no-untyped-def]
    """Give a score no higher than the K-th best: K of the maxima of disjoint groups of columns reach it."""
    maxima[:] = -np.inf
    for start in range(0, len(row) - LANES + 1, LANES):
        raise_to(maxima, start % len(maxima), row, start)
    for i in range(len(maxima)):
        keys[i] = _key(maxima[i], i)
    return _score(_limit(keys[: len(maxima)], k, k + k // 4))


@nb.njit(nogil=True, cache=True)
def _check_pattern(indptr, indices):  # type: ignore[no-untyped-def]
    """Give whether a CSR's rows are within its indices, one after another, and whether each ascends."""
    ascends = True
    for row in range(len(indptr) - 1):
        start, stop = np.int64(indptr[row]), np.int64(indptr[row + 1])
        if not 0 <= start <= stop <= len(indices):
            return False, False
        for at in range(start + 1, stop):
            ascends &= indices[at - 1] <= indices[at]
    return True, ascends


@nb.njit(nogil=True, cache=True)
def push_tile(scores, first, indptr, indices, cursor, k, keys, counts, thresholds):  # type: ignore[no-untyped-def]
    """Take the (B, C) scores of items ``first`` .. ``first + C - 1`` into the state of each row.

    Scores of a row's items in the CSR pattern are overwritten with -inf: cheaper than a question for each candidate.
    Tiles come in ascending order of items.
    """
    rows, columns = scores.shape
    capacity = keys.shape[1]
    whole = columns - columns % LANES
    maxima = np.empty(-(-2 * k // LANES) * LANES, dtype=np.float32)
    starts = np.empty(columns // LANES + 1, dtype=np.int64)
    masks = np.empty(columns // LANES + 1, dtype=np.uint64)
    for row in range(rows):
        line, row_keys = scores[row], keys[row]
        at, end = cursor[row], indptr[row + 1]
        while at < end and indices[at] < first + columns:
            if indices[at] >= first:  # below are unknown items, -1 say, and those of tiles that went by
                line[indices[at] - first] = -np.inf
            at += 1
        cursor[row] = at
        count, threshold = counts[row], thresholds[row]
        if first == 0 and columns >= 2 * len(maxima):
            bound = _lower_bound(line, k, maxima, row_keys)
            if bound > -np.inf:
                threshold = np.nextafter(bound, np.float32(-np.inf))
        found = 0  # Chunks with a hit are first listed without a branch: each one would be mispredicted.
        for start in range(0, whole, LANES):
            starts[found] = start
            masks[found] = above(line, start, threshold)
            found += np.int64(masks[found] != 0)
        if whole < columns:
            starts[found] = whole
            masks[found] = 0
            for column in range(whole, columns):
                masks[found] |= np.uint64(line[column] > threshold) << np.uint64(column - whole)
            found += 1
        for chunk in range(found):
            hits = masks[chunk]
            while hits != 0:
                column = starts[chunk] + lowest_bit(hits)
                hits &= hits - np.uint64(1)
                row_keys[count] = _key(line[column], first + column)
                count += 1
            if count > capacity - LANES:
                limit = _limit(row_keys[:count], k, k + k // 4)
                count = _keep_from(row_keys, count, limit)
                threshold = _score(limit)
        counts[row] = count
        thresholds[row] = threshold


@nb.njit(nogil=True, cache=True)
def finish_rows(keys, counts, items, scores):  # type: ignore[no-untyped-def]
    """Sort each row's candidates into ``items`` and ``scores``, (B, K): a key's place is how many reach it."""
    k = items.shape[1]
    for row in range(len(keys)):
        row_keys, count = keys[row], counts[row]
        if count > k:
            count = _keep_from(row_keys, count, _limit(row_keys[:count], k, k))
        if count > _SORTED:
            row_keys[:count].sort()
        for i in range(count):
            at = count - 1 - i if count > _SORTED else _count_from(row_keys[:count], row_keys[i]) - 1
            items[row, at] = np.int32(_LOW - (row_keys[i] & _LOW))
            scores[row, at] = _score(row_keys[i])


@dataclass(frozen=True)
class Selection:
    """The best ``k`` so far of ``B`` rows, while tiles of scores go by."""

    k: int
    indptr: Integers
    indices: Integers
    cursor: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    thresholds: Floats

    @classmethod
    def start(cls, k: int, indptr: Integers, indices: Integers) -> Self:
        """Begin with no candidates; the items of the CSR pattern are to be left out, those that there are.

        Raises:
            DataError: ``indptr`` does not bound rows of ``indices``.
        """
        rows = len(indptr) - 1
        within, ascends = _check_pattern(indptr, indices)
        if not within:
            raise DataError(
                f"The pattern of what to leave out has row starts {indptr[:3].tolist()} .. {int(indptr[-1])}; they "
                f"must ascend from 0 and not pass its {len(indices)} entries."
            )
        if not ascends:
            indices = indices[indptr[0] : indptr[-1]]
            indptr = indptr - indptr[0]
            indices = indices[np.lexsort((indices, np.repeat(np.arange(rows), np.diff(indptr))))]
        return cls(
            k,
            indptr,
            indices,
            indptr[:-1].astype(np.int64),
            np.empty((rows, k + max(k, LANES) + LANES), dtype=np.int64),
            np.zeros(rows, dtype=np.int64),
            np.full(rows, -np.inf, dtype=np.float32),
        )

    def push(self, scores: Floats, first: int, rows: slice = slice(None)) -> None:
        """Take in the scores of ``rows`` for items ``first`` onwards, (B, C). Excluded ones become -inf in place."""
        start, stop, _ = rows.indices(len(self.counts))
        push_tile(
            scores,
            first,
            self.indptr[start : stop + 1],
            self.indices,
            self.cursor[rows],
            self.k,
            self.keys[rows],
            self.counts[rows],
            self.thresholds[rows],
        )

    def finish(self) -> tuple[Items, Floats]:
        """Give the items (B, k) int32 and their scores (B, k) float32, best first."""
        items = np.full((len(self.counts), self.k), NO_ITEM, dtype=np.int32)
        scores = np.full(items.shape, -np.inf, dtype=np.float32)
        finish_rows(self.keys, self.counts, items, scores)
        return items, scores


def check_starts(indptr: Integers, rows: int) -> None:
    """Refuse a CSR pattern of another number of rows."""
    if len(indptr) != rows + 1:
        raise DataError(f"The pattern of what to leave out has {len(indptr) - 1} rows; {rows} are asked for.")


def top_k(scores: Floats, k: int, indptr: Integers, indices: Integers) -> tuple[Items, Floats]:
    """The ``k`` best items of each row, best first, leaving out the row's items in a CSR pattern.

    Args:
        scores: (B, I) float32. A score of -inf or NaN is never recommended.
        k: how many; where fewer remain, the rest is item -1 with score -inf.
        indptr: (B + 1,), with ``indices`` the CSR of items to leave out.
        indices: item rows, in any order; there is no harm in one twice, nor in one that is unknown, -1 say.

    Returns:
        Items (B, k) int32 and scores (B, k) float32. Ties: the lower item row first.

    Raises:
        DataError: ``indptr`` is not of B rows of ``indices``.

    Example:
        >>> scores = np.array([[0.1, 0.9, 0.5]], dtype=np.float32)
        >>> top_k(scores, 2, np.array([0, 1]), np.array([1]))[0]
        array([[2, 0]], dtype=int32)
    """
    check_starts(indptr, len(scores))
    selection = Selection.start(k, indptr, indices)
    for start in range(0, len(scores), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(scores)))
        selection.push(np.array(scores[rows], dtype=np.float32, order="C"), 0, rows)
    return selection.finish()

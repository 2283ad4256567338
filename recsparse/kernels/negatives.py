"""Negative items for a user, drawn without a state, never one the user is known to have.

Draws are counter-based (splitmix64 of a seed and a position), so they are the same at any number of threads. Whether an
item is known is asked of a per-user bit filter first; almost always that is one look at one byte in cache.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

BITS_PER_ITEM = 32
"""Filter bits for each known item: 3 % of unknown items need the exact search as well."""

TRIES = 16
"""Draws for each negative wanted before it is given up, for users who have nearly everything."""

CANDIDATES = 64
"""Draws at a time."""

_STEP = np.uint64(0x9E3779B97F4A7C15)


class Known(NamedTuple):
    """What each user is known to have.

    Attributes:
        ptr: (U + 1,) int64, with ``items`` the CSR of X.
        items: (nnz,) int32, ascending within a user.
        filter_ptr: (U + 1,) int64, where each user's bits start; a user with I bits has one for each item.
        bits: uint8, the filter.
        n_items: I.
    """

    ptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    filter_ptr: npt.NDArray[np.int64]
    bits: npt.NDArray[np.uint8]
    n_items: int


def known_items(indptr: npt.NDArray[np.integer], indices: npt.NDArray[np.integer], n_items: int) -> Known:
    """Build the filter of a CSR pattern: at most 4 bytes an interaction, or I / 8 a user where that is less."""
    ptr, items = indptr.astype(np.int64), indices.astype(np.int32)
    sizes = np.minimum(np.diff(ptr) * BITS_PER_ITEM, n_items)
    filter_ptr = np.concatenate([[0], np.cumsum(sizes)])
    known = Known(ptr, items, filter_ptr, np.zeros(int(filter_ptr[-1]) // 8 + 1, dtype=np.uint8), n_items)
    fill_filter(known)
    return known


@nb.njit(nogil=True, cache=True, inline="always")
def mix(word):  # type: ignore[no-untyped-def]
    """Hash a uint64 (splitmix64, Steele et al. 2014)."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@nb.njit(nogil=True, cache=True, inline="always")
def below(word, n):  # type: ignore[no-untyped-def]
    """Map the upper half of a random uint64 to 0 .. n - 1, n < 2^32."""
    return np.int64(((word >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@nb.njit(nogil=True, cache=True, inline="always")
def _bit(item, start, size, n_items):  # type: ignore[no-untyped-def]
    hashed = (np.uint64(item) * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    return np.uint64(start) + (np.uint64(item) if size == n_items else (hashed * np.uint64(size)) >> np.uint64(32))


@nb.njit(nogil=True, cache=True, inline="always")
def _is_set(bits, bit):  # type: ignore[no-untyped-def]
    return (bits[bit >> np.uint64(3)] >> np.uint8(bit & np.uint64(7))) & np.uint8(1)


@nb.njit(nogil=True, cache=True)
def fill_filter(known):  # type: ignore[no-untyped-def]
    """Set the bits of every known item."""
    for user in range(len(known.ptr) - 1):
        start = known.filter_ptr[user]
        size = known.filter_ptr[user + 1] - start
        for entry in range(known.ptr[user], known.ptr[user + 1]):
            bit = _bit(known.items[entry], start, size, known.n_items)
            known.bits[bit >> np.uint64(3)] |= np.uint8(1 << (bit & np.uint64(7)))


@nb.njit(nogil=True, cache=True, inline="always")
def is_known(item, items, low, end, bits, bits_start, bits_size, n_items):  # type: ignore[no-untyped-def]
    """Whether ``item`` is in the ascending ``items[low:end]``, by the filter where that suffices. Exact."""
    if not _is_set(bits, _bit(item, bits_start, bits_size, n_items)):
        return False
    if bits_size == n_items:
        return True
    high = end
    while low < high:
        middle = (low + high) >> 1
        if items[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low < end and items[low] == item


@nb.njit(nogil=True, cache=True, inline="always")
def draw(pool, first, size, word, candidates, many):  # type: ignore[no-untyped-def]
    """Fill ``candidates`` with ``many`` draws number ``word`` and following, with replacement."""
    for at in range(many):
        candidates[at] = pool[np.uint64(first + below(mix((word + np.uint64(at)) * _STEP), size))]


@nb.njit(nogil=True, cache=True)
def draw_rows(start, stop, users, ptr, positives, known, pool, first, size, negatives, seed, drawn, rows, ends):  # type: ignore[no-untyped-def]
    """Write the rows that groups [start, stop) train on: each positive, then its negatives out of a slice of ``pool``.

    ``ends`` gets the end of each group's rows; ``drawn`` has room for a group's draws and ``CANDIDATES`` more. After 16
    draws for each negative wanted, the positives still without theirs are left out. Candidates are drawn many at a
    time and the unknown ones kept without a branch, of which a processor would guess wrong at every known one.
    """
    known_ptr, own_items, filter_ptr, bits, n_items = known
    candidates = np.empty(CANDIDATES, dtype=np.int32)
    n = 0
    for group in range(start, stop):
        user = users[group]
        bits_start = filter_ptr[user]
        bits_size = filter_ptr[user + 1] - bits_start
        low, end = known_ptr[user], known_ptr[user + 1]
        wanted = (ptr[group + 1] - ptr[group]) * negatives
        word = seed + np.uint64(ptr[group] * negatives * TRIES)
        asked = found = 0
        while found < wanted and asked < wanted * TRIES:
            many = min(CANDIDATES, wanted * TRIES - asked, (wanted - found) * 3 // 2 + 2)
            draw(pool, first, size, word + np.uint64(asked), candidates, many)
            asked += many
            if bits_size == n_items:
                for at in range(many):
                    drawn[found] = candidates[at]
                    found += 1 - np.int64(_is_set(bits, _bit(candidates[at], bits_start, bits_size, n_items)))
            else:
                for at in range(many):
                    drawn[found] = candidates[at]
                    if not is_known(candidates[at], own_items, low, end, bits, bits_start, bits_size, n_items):
                        found += 1
        for sample in range(min(found, wanted) // negatives):
            rows[n] = positives[ptr[group] + sample]
            for other in range(negatives):
                rows[n + 1 + other] = drawn[sample * negatives + other]
            n += 1 + negatives
        ends[group - start] = n

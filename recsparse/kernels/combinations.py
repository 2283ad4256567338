"""Which k of n <= 64 columns: the subset's number among all ``C(n, k)`` of them, in ``ceil(log2 C(n, k))`` bits.

Numbering follows a split in halves: all subsets with fewer ones on the left come first; among those with as many, the
number is ``left * C(right, ones right) + right``, where each half of up to 32 is numbered the same way, down to
quarters of 16 that one table numbers by (ones, value). Two searches and two divisions thus find a subset, whatever k.

(Enumerative coding: Cover, 1973, IEEE Trans. Inf. Theory 19(1).)
"""

import numba as nb
import numpy as np

from recsparse.kernels.bits import popcount
from recsparse.kernels.lanes import count_at_most

CHUNK = 64
QUARTER = 16


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def unrank_half(number, ones, side, halves, half_choose, subsets, first_subset):  # type: ignore[no-untyped-def]
    """The subset of the left (``side`` 0) or right (1) up to 32 columns with this number."""
    row = (side * 33 + ones) * 17
    left_ones = count_at_most(halves, row + 1, number)
    rest = np.uint32(number - halves[np.uint64(row + left_ones)])
    right_ones = ones - left_ones
    divisor = half_choose[np.uint64(side * 33 + right_ones)]
    left = np.uint32(rest // divisor)
    right = np.uint32(rest - left * divisor)
    first = first_subset[np.uint64(left_ones)] + np.int64(left)
    second = first_subset[np.uint64(right_ones)] + np.int64(right)
    return np.uint64(subsets[np.uint64(first & 0xFFFF)]) | (  # a damaged number stays in the table
        np.uint64(subsets[np.uint64(second & 0xFFFF)]) << np.uint64(QUARTER)
    )


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def unrank(number, ones, whole, whole_choose, halves, half_choose, subsets, first_subset):  # type: ignore[no-untyped-def]
    """The subset of a chunk with this number, as the bits of an uint64.

    Args:
        number: uint64.
        ones: how many columns.
        whole: uint64 (65 * 33,), subsets before those with j ones on the left.
        whole_choose: uint64 (65,), subsets of the right half.
        halves: uint32 (2 * 33 * 17,), the same for each half.
        half_choose: uint32 (2 * 33,), subsets of each half's right quarter.
        subsets: uint16 (65536,), 16-bit numbers by (ones, value).
        first_subset: int64 (18,), where each number of ones begins there.
    """
    row = ones * 33
    left_ones = count_at_most(whole, row + 1, number)
    rest = number - whole[np.uint64(row + left_ones)]
    right_ones = ones - left_ones
    divisor = whole_choose[np.uint64(right_ones)]
    left = rest // divisor
    right = rest - left * divisor
    return unrank_half(np.uint32(left), min(left_ones, 32), 0, halves, half_choose, subsets, first_subset) | (
        unrank_half(np.uint32(right), min(right_ones, 32), 1, halves, half_choose, subsets, first_subset)
        << np.uint64(32)
    )


@nb.njit(forceinline=True, cache=True)
def rank_half(mask, side, halves, half_choose, numbers):  # type: ignore[no-untyped-def]
    """The inverse of :func:`unrank_half`; ``numbers`` is uint16 (65536,), each 16-bit number's place in its class."""
    left = mask & np.uint64(0xFFFF)
    right = (mask >> np.uint64(QUARTER)) & np.uint64(0xFFFF)
    left_ones = popcount(left)
    right_ones = popcount(right)
    return (
        np.uint64(halves[(side * 33 + left_ones + right_ones) * 17 + left_ones])
        + np.uint64(numbers[left]) * np.uint64(half_choose[side * 33 + right_ones])
        + np.uint64(numbers[right])
    )


@nb.njit(forceinline=True, cache=True)
def rank_subset(mask, whole, whole_choose, halves, half_choose, numbers):  # type: ignore[no-untyped-def]
    """The inverse of :func:`unrank`."""
    left = mask & np.uint64(0xFFFFFFFF)
    right = mask >> np.uint64(32)
    left_ones = popcount(left)
    right_ones = popcount(right)
    return (
        whole[(left_ones + right_ones) * 33 + left_ones]
        + rank_half(left, 0, halves, half_choose, numbers) * whole_choose[right_ones]
        + rank_half(right, 1, halves, half_choose, numbers)
    )

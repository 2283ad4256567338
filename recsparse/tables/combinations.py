"""The tables behind :mod:`recsparse.kernels.combinations`, made once per chunk width."""

from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt

from recsparse.kernels.combinations import CHUNK, QUARTER
from recsparse.tables.bits import bits_for, frozen


def chunking(dim: int) -> tuple[int, int]:
    """How many chunks a row of ``dim`` columns has, and the width of each (the last may be narrower)."""
    n_chunks = max(1, -(-dim // CHUNK))
    return n_chunks, max(1, -(-dim // n_chunks))


@dataclass(frozen=True, eq=False)
class Numbering:
    """Subsets of ``width`` <= 64 columns as numbers.

    Attributes:
        unrank_arguments: what :func:`~recsparse.kernels.combinations.unrank` takes after number and ones.
        rank_arguments: what :func:`~recsparse.kernels.combinations.rank_subset` takes after the mask.
        bits: int64 (65,), bits of a number by ones.
    """

    unrank_arguments: tuple[Any, ...]
    rank_arguments: tuple[Any, ...]
    bits: npt.NDArray[np.int64]


@cache
def _quarters() -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    ones = np.bitwise_count(np.arange(1 << QUARTER, dtype=np.uint16)).astype(np.int64)
    subsets = np.argsort(ones, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(ones, minlength=QUARTER + 1))])
    numbers = np.empty(1 << QUARTER, dtype=np.uint16)
    numbers[subsets] = np.arange(1 << QUARTER) - first[ones[subsets]]
    return frozen(subsets.astype(np.uint16)), frozen(first.astype(np.uint32)), frozen(numbers)


def _cumulative(left: int, right: int, dtype: Any) -> npt.NDArray[Any]:
    """By j and ones, subsets before those with j ones on the left; where there are none, the largest number."""
    most = np.iinfo(dtype).max
    half = CHUNK // 2 if dtype == np.uint64 else QUARTER
    table = np.full((half + 1, 2 * half + 1), most, dtype=dtype)
    for ones in range(left + right + 1):
        before = 0
        for on_left in range(min(ones, left) + 1):
            table[on_left, ones] = before
            before += comb(left, on_left) * comb(right, ones - on_left)
    return table


@cache
def numbering(width: int) -> Numbering:
    """The tables for chunks of ``width`` columns."""
    quarters = [min(QUARTER, max(0, width - QUARTER * number)) for number in range(4)]
    halves = (quarters[0] + quarters[1], quarters[2] + quarters[3])
    whole = _cumulative(halves[0], halves[1], np.uint64)
    whole_choose = np.array([max(1, comb(halves[1], ones)) for ones in range(CHUNK + 1)], dtype=np.uint64)
    half = np.stack([_cumulative(quarters[side], quarters[side + 1], np.uint32) for side in (0, 2)])
    half_choose = np.array(
        [[max(1, comb(quarters[side], ones)) for ones in range(CHUNK // 2 + 1)] for side in (1, 3)], dtype=np.uint32
    )
    subsets, first, numbers = _quarters()
    tables = tuple(frozen(table.reshape(-1)) for table in (whole, whole_choose, half, half_choose))
    bits = np.array([bits_for(comb(width, ones) - 1) if ones <= width else 0 for ones in range(CHUNK + 1)])
    return Numbering((*tables, subsets, first), (*tables, numbers), frozen(bits))


@cache
def pair_sums(width: int, count_width: int) -> npt.NDArray[np.uint32]:
    """Of two counts of ``count_width`` bits beside each other: their sum, and 2**16 times that of their numbers' bits.

    uint32 (4 ** count_width,).
    """
    ones = np.minimum(np.arange(1 << count_width), width)
    one = (ones | numbering(width).bits[ones] << 16).astype(np.uint32)
    return frozen(np.add.outer(one, one).reshape(-1))

"""Subset numbers: one for each subset, all below C(n, k), and back."""

from itertools import combinations
from math import comb

import numba as nb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsparse.kernels.combinations import rank_subset, unrank
from recsparse.tables.combinations import numbering


@nb.njit
def there(mask, arguments):
    return rank_subset(mask, *arguments)


@nb.njit
def back(number, ones, arguments):
    return unrank(number, ones, *arguments)


@pytest.mark.parametrize("width", [1, 5, 16, 17, 18])
@pytest.mark.parametrize("ones", [0, 1, 2, 3])
def test_all_subsets_have_all_numbers(width, ones):
    table = numbering(width)
    masks = [sum(1 << place for place in places) for places in combinations(range(width), ones)]
    numbers = sorted(int(there(np.uint64(mask), table.rank_arguments)) for mask in masks)
    assert numbers == list(range(comb(width, ones)))


@given(st.integers(0, 2**64 - 1), st.integers(1, 64))
def test_a_number_gives_its_subset_back(mask, width):
    mask &= (1 << width) - 1
    table = numbering(width)
    number = int(there(np.uint64(mask), table.rank_arguments))
    assert number < comb(width, mask.bit_count()) <= 2 ** int(table.bits[mask.bit_count()])
    assert int(back(np.uint64(number), mask.bit_count(), table.unrank_arguments)) == mask

"""Subset numbers: one for each subset, all below C(n, k), and back."""

from itertools import combinations
from math import comb

import numba as nb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsparse.kernels.combinations import AT_ONCE, rank_subset, unrank
from recsparse.tables.combinations import numbering


@nb.njit
def there(mask, arguments):
    return rank_subset(mask, *arguments)


@nb.njit
def back(notes, arguments):
    unrank(notes, 0, AT_ONCE, *arguments)


@pytest.mark.parametrize("width", [1, 5, 16, 17, 18])
@pytest.mark.parametrize("ones", [0, 1, 2, 3])
def test_all_subsets_have_all_numbers(width, ones):
    table = numbering(width)
    masks = [sum(1 << place for place in places) for places in combinations(range(width), ones)]
    numbers = sorted(int(there(np.uint64(mask), table.rank_arguments)) for mask in masks)
    assert numbers == list(range(comb(width, ones)))


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=AT_ONCE), st.integers(1, 64), st.booleans())
def test_a_number_gives_its_subset_back(words, width, few):
    table = numbering(width)
    notes = np.zeros(2 * AT_ONCE, dtype=np.uint64)
    masks = [(word & word >> 7 & word >> 21 if few else word) & ((1 << width) - 1) for word in words]
    for place, mask in enumerate(masks):
        number = int(there(np.uint64(mask), table.rank_arguments))
        assert number < comb(width, mask.bit_count()) <= 2 ** int(table.bits[mask.bit_count()])
        notes[place], notes[AT_ONCE + place] = number, mask.bit_count()
    back(notes.view(np.int64), table.unrank_arguments)
    assert notes[: len(masks)].tolist() == masks


@pytest.mark.parametrize("width", [8, 16, 40, 63, 64])
def test_the_last_number_of_each_count_is_found(width):
    table = numbering(width)
    for ones in range(width + 1):
        notes = np.full(2 * AT_ONCE, comb(width, ones) - 1, dtype=np.int64)
        notes[AT_ONCE:] = ones
        back(notes, table.unrank_arguments)
        mask = np.uint64(notes[0])
        assert int(mask).bit_count() == ones
        assert int(there(mask, table.rank_arguments)) == comb(width, ones) - 1

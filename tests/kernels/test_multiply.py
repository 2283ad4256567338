"""The ones of a mask as a list."""

import numba as nb
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsparse.kernels.combinations import CHUNK
from recsparse.kernels.multiply import list_ones


@nb.njit
def call(mask, first, columns, at):
    list_ones(mask, first, columns, at)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**20), st.integers(0, 3))
def test_ones_are_listed_in_order_and_nothing_past_their_room_is_written(word, other, first, at):
    for mask in (word, word & other, word & -word, 2**64 - 1):
        columns = np.full(at + CHUNK + 1, 7, dtype=np.uint32)
        call(np.uint64(mask), first, columns, at)
        expected = [first + place for place in range(CHUNK) if mask >> place & 1]
        assert columns[at : at + len(expected)].tolist() == expected
        assert (columns[:at] == 7).all()
        assert columns[-1] == 7

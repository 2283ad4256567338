"""Masks: conversions, algebra and counts against dense booleans."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recsparse.errors import DataError
from recsparse.tables import Mask, pack


@st.composite
def masks(draw, shape=None):
    rows, dim = shape or (draw(st.integers(0, 30)), draw(st.sampled_from([1, 6, 12, 64, 96])))
    block = (draw(st.integers(1, 4)), draw(st.sampled_from([c for c in (1, 2, 3, 6, dim) if dim % c == 0])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tiles = rng.random((-(-rows // block[0]), dim // block[1])) < draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))
    return Mask.from_tiles(tiles, (rows, dim), block)


@settings(deadline=None)
@given(masks())
def test_every_view_of_a_mask_agrees(mask):
    dense = mask.to_dense()
    assert dense.shape == mask.shape
    assert mask == Mask.from_dense(dense) == mask.to_elements() == Mask.from_csr(mask.to_csr())
    assert Mask.from_dense(dense, mask.block) == mask
    np.testing.assert_array_equal(mask.row_counts, dense.sum(axis=1))
    np.testing.assert_array_equal(mask.column_counts, dense.sum(axis=0))
    assert mask.kept == dense.sum()
    assert mask.density == pytest.approx(dense.mean() if dense.size else 0)
    np.testing.assert_array_equal(mask.columns(), np.nonzero(dense)[1])
    tiles = mask.tiles(0, -(-mask.shape[0] // mask.block[0]))
    places = np.flatnonzero(tiles)
    assert Mask.from_places(places, mask.shape, mask.block) == mask
    assert Mask.from_tiles(~tiles, mask.shape, mask.block) == mask.flipped(np.arange(tiles.size))
    half = mask.shape[0] // 2
    assert mask.select_rows(half, mask.shape[0]) == Mask.from_dense(dense[half:])
    groups = np.arange(mask.shape[0]) % 3
    for group, density in enumerate(mask.group_densities(groups)):
        assert density == pytest.approx(dense[groups == group].mean() if (groups == group).any() else 0)


@settings(deadline=None)
@given(st.data())
def test_unions_and_intersections(data):
    shape = (data.draw(st.integers(0, 20)), 12)
    one, other = data.draw(masks(shape)), data.draw(masks(shape))
    np.testing.assert_array_equal((one | other).to_dense(), one.to_dense() | other.to_dense())
    np.testing.assert_array_equal((one & other).to_dense(), one.to_dense() & other.to_dense())


def test_granularity_has_its_three_names():
    assert Mask.full((4, 6)).granularity == "element"
    assert Mask.full((4, 6), (1, 6)).granularity == "row"
    assert Mask.full((4, 6), (2, 3)).granularity == "block"


def test_what_is_not_a_mask_is_refused():
    with pytest.raises(DataError, match="bool"):
        Mask.from_dense(np.ones((2, 2)))
    with pytest.raises(DataError, match="in part"):
        Mask.from_dense(np.eye(4, dtype=bool), (2, 2))
    with pytest.raises(DataError, match="divide"):
        Mask.full((2, 5), (1, 2))
    with pytest.raises(DataError, match="column"):
        Mask.full((2, 0))
    with pytest.raises(DataError, match="shapes"):
        Mask.full((2, 2)) | Mask.full((3, 2))
    with pytest.raises(DataError, match="Tile 10000000000 "):
        Mask.from_places(np.array([1, 10**10]), (2, 2), (1, 1))
    with pytest.raises(DataError, match="Tile -1000000000 "):
        Mask.full((2, 2)).flipped(np.array([-(10**9)]))
    with pytest.raises(DataError, match="Tile 4 "):
        Mask.full((2, 2)).flipped(np.array([3, 4]))
    for rows in ((10, 10**8), (-1, 1), (2, 1), (0, 3)):
        with pytest.raises(DataError, match=f"Rows {rows[0]} to {rows[1]} .* has 2"):
            Mask.full((2, 2)).select_rows(*rows)
        with pytest.raises(DataError, match="has 2"):
            Mask.full((2, 2)).dense_rows(*rows)
    for column in (10**8, -1):
        outside = sp.csr_array((np.ones(1), np.array([column]), np.array([0, 1, 1])), shape=(2, 2))
        with pytest.raises(DataError, match="malformed"):
            Mask.from_csr(outside)
        with pytest.raises(DataError, match="malformed"):
            pack(outside)
    with pytest.raises(DataError, match="groups"):
        Mask.full((2, 2)).group_densities([0])


def test_a_mask_of_ten_million_rows_is_never_dense():
    kept = np.zeros(10_000_000, dtype=bool)
    kept[::7] = True
    mask = Mask.from_rows(kept, 64)
    assert mask.nbytes < 1_300_000
    assert mask.kept == 64 * kept.sum()
    assert Mask.from_csr(sp.csr_array((1_000_000, 64))).kept == 0


@pytest.mark.parametrize("block", [(0, 2), (2, 0), (-1, 2), (1, 4)])
def test_blocks_that_tile_nothing_are_refused_however_a_mask_is_made(block):
    shape = (4, 6)
    for make in (
        lambda: Mask.full(shape, block),
        lambda: Mask.from_tiles(np.ones(shape), shape, block),
        lambda: Mask.from_dense(np.ones(shape, dtype=bool), block),
        lambda: Mask.from_places(np.zeros(1, dtype=np.int64), shape, block),
    ):
        with pytest.raises(DataError, match="do not tile 6 columns"):
            make()
    with pytest.raises(DataError, match="at least one column"):
        Mask.full((4, 0), (1, 1))

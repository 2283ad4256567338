"""Packing and lookup: every layout, value type and remap against the dense reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsparse.errors import ConfigError, DataError
from recsparse.tables import LAYOUTS, Mask, layout_sizes, pack, quantise
from recsparse.tables.values import KINDS

FLOATS = ("fp32", "fp16", "bf16")


@st.composite
def tables(draw):
    """A layout, values, and a mask it can hold."""
    layout = draw(st.sampled_from(LAYOUTS))
    rows, dim = draw(st.integers(0, 40)), draw(st.sampled_from([1, 2, 7, 16, 33, 64, 65, 100, 128, 200]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]))
    block = (1, 1)
    if layout == "block":
        block = (draw(st.integers(1, 3)), draw(st.sampled_from([c for c in (1, 2, 4, 7, 16) if dim % c == 0])))
    if layout == "ell":
        k = round(density * dim)
        kept = np.zeros((rows, dim), dtype=bool)
        np.put_along_axis(kept, rng.permuted(np.tile(np.arange(dim), (rows, 1)), axis=1)[:, :k], True, axis=1)
        mask = Mask.from_dense(kept)
    else:
        tiles = rng.random((-(-rows // block[0]), dim // block[1])) < density
        mask = Mask.from_tiles(tiles, (rows, dim), block)
    values = rng.standard_normal((rows, dim)).astype(np.float32) * np.float32(10.0 ** draw(st.integers(-3, 2)))
    remap = None if layout == "dense" else draw(st.sampled_from([None, True, False] if layout != "rows" else [None]))
    return layout, values, mask, remap


@settings(max_examples=150, deadline=None)
@given(tables(), st.sampled_from(list(KINDS)), st.sampled_from(["row", "column"]))
def test_lookup_equals_the_rounded_dense_table(case, value_type, scales):
    layout, values, mask, remap = case
    kept = mask.to_dense()
    table = pack(values, mask, layout=layout, value_type=value_type, scales=scales, remap=remap)
    stored = kept if layout not in ("dense", "rows") else np.ones_like(kept) & kept.any(axis=1, keepdims=True)
    if layout == "dense":
        stored = np.ones_like(kept)
    expected = quantise(np.where(kept, values, 0), value_type, mask=stored, scales=scales)
    dense = table.to_dense()
    np.testing.assert_allclose(dense, expected, rtol=1e-6)
    if value_type == "fp32":
        np.testing.assert_array_equal(dense, np.where(kept, values, 0))
    n = len(values)
    ids = np.array([-1, n, n + 5, *([0, n - 1, 0] if n else [])])
    for given_ids in (ids, ids.astype(np.int32)):
        rows = table.lookup(given_ids)
        assert not rows[:3].any()
        np.testing.assert_array_equal(rows[3:], dense[ids[3:]])
    matching = [
        c
        for c in layout_sizes(mask, value_type=value_type, scales=scales)
        if c.layout == layout and c.remap == (table.remap is not None)
    ]
    if matching:
        assert {k: p.nbytes for k, p in matching[0].parts.items() if p.nbytes} == table.breakdown()
    np.testing.assert_array_equal(table.row_counts(), stored.sum(axis=1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_place(value):
    values = np.ones((3, 2))
    values[2, 1] = value
    with pytest.raises(DataError, match=r"\(2, 1\)"):
        pack(values)


def test_what_cannot_be_held_is_refused():
    with pytest.raises(DataError, match="ELL"):
        pack(np.array([[1.0, 1], [1, 0]]), layout="ell")
    with pytest.raises(ConfigError, match="layout"):
        pack(np.eye(2), layout="coo")
    with pytest.raises(ConfigError, match="value type"):
        pack(np.eye(2), value_type="fp8")
    with pytest.raises(DataError, match="fp16"):
        pack(np.full((1, 1), 1e6), value_type="fp16")
    with pytest.raises(DataError, match="integers"):
        pack(np.eye(2)).lookup([0.5])

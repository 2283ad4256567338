"""Low-rank x sparse tables: every lookup is the product's row, whatever S is stored as."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recsparse.errors import DataError, FormatError
from recsparse.tables import FactoredTable, Mask, load_table, pack, save_table
from recsparse.tables.bits import frozen
from recsparse.tables.storage import read_tensors
from tests.tables.damage import damage

RNG = np.random.default_rng(11)
VALUES = np.where(RNG.random((100, 32)) < 0.25, RNG.standard_normal((100, 32)), 0).astype(np.float32)
IDS = np.array([0, 99, -1, 100, 57, 57, -(2**60), 2**60])


def mask_for(layout, rows, m, density, rng):
    if layout == "block" and m % 2 == 0:
        return Mask.from_tiles(rng.random((rows, m // 2)) < density, (rows, m), (1, 2))
    if layout == "rows":
        return Mask.from_rows(rng.random(rows) < density, m)
    if layout == "ell":
        return Mask.from_dense(rng.random((rows, m)).argsort(axis=1) < density * m)
    return Mask.from_dense(rng.random((rows, m)) < density)


@settings(deadline=None)
@given(
    layout=st.sampled_from(["dense", "rows", "bitmap", "block", "ell", "csr", "combination"]),
    value_type=st.sampled_from(["fp32", "bf16", "int8", "int5"]),
    scales=st.sampled_from(["row", "column"]),
    m=st.sampled_from([1, 6, 64, 100, 130, 300]),
    dim=st.sampled_from([1, 15, 16, 17, 64, 100, 128]),
    density=st.sampled_from([0, 0.02, 0.3, 1]),
    remap=st.booleans(),
    mean=st.booleans(),
)
def test_a_lookup_is_the_row_of_the_product(layout, value_type, scales, m, dim, density, remap, mean):
    rng = np.random.default_rng(m + dim)
    mask = mask_for(layout, 70, m, density, rng)
    stored = {
        "value_type": value_type,
        "scales": scales,
        "fallback": "mean" if mean and mask.row_counts.all() else "zero",
    }
    sparse = pack(
        rng.standard_normal((70, m)),
        mask,
        layout=layout,
        remap=layout == "rows" or (remap and layout != "dense"),
        **stored,
    )
    table = FactoredTable(sparse, pack(rng.standard_normal((m, dim)), layout="dense"))
    ids = rng.integers(-2, 73, 150)
    expected = sparse.lookup(ids).astype(np.float64) @ table.basis.to_dense()
    np.testing.assert_allclose(table.lookup(ids), expected, atol=1e-4)
    assert table.lookup(ids[:0]).shape == (0, dim)


@pytest.mark.parametrize("layout", ["bitmap", "block", "csr", "combination"])
def test_lookups_in_a_damaged_s_are_refused_or_stay_inside(tmp_path, layout):
    path = tmp_path / "t"
    values = np.tile(np.pad(VALUES, ((0, 0), (0, 5))), (20, 1))
    save_table(FactoredTable(pack(values, layout=layout, remap=True), pack(RNG.standard_normal((37, 20)))), path)
    whole, refused = path.read_bytes(), 0
    _, tensors = read_tensors(path)
    for name in tensors:
        for seed in range(20):
            path.write_bytes(whole)
            damage(path, name, np.random.default_rng(seed))
            try:
                load_table(path, verify=False).lookup(np.arange(2000))
            except FormatError:
                refused += 1
    assert refused


@pytest.mark.parametrize("layout", ["rows", "bitmap", "csr", "combination"])
def test_rows_that_damaged_counters_place_before_the_first_are_zeros(layout):
    sparse = pack(np.pad(VALUES, ((0, 1000), (0, 0))), layout=layout, value_type="int8", remap=True)
    counters = sparse.remap.counters.astype(np.uint64)  # as of tables of more than 2^32 rows
    counters[:-1] = 2**64 - 2**40
    damaged = replace(sparse, remap=replace(sparse.remap, counters=frozen(counters)))
    table = FactoredTable(damaged, pack(RNG.standard_normal((32, 20))))
    assert not table.lookup(np.arange(100)).any()


@pytest.mark.parametrize("layout", ["csr", "bitmap"])
def test_many_ids_are_shared_among_threads(layout):
    rng = np.random.default_rng(0)
    picked = np.where(rng.random((500, 70)) < 0.1, rng.integers(-9, 9, (500, 70)), 0)
    basis = rng.integers(-9, 9, (70, 64))  # so that every sum is exact, whatever its order
    table = FactoredTable(pack(picked, layout=layout), pack(basis, layout="dense"))
    ids = rng.integers(0, 500, 20_000)  # more than a million entries
    np.testing.assert_array_equal(table.lookup(ids), (picked @ basis)[ids])


def test_a_factored_table_is_the_product(tmp_path):
    basis = RNG.standard_normal((32, 12)).astype(np.float32)
    table = FactoredTable(pack(VALUES, value_type="int8", fallback="mean"), pack(basis, value_type="fp16"))
    dense = table.sparse.to_dense() @ table.basis.to_dense()
    np.testing.assert_allclose(table.to_dense(), dense, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(table.lookup([-1])[0], dense.mean(axis=0), rtol=1e-2, atol=3e-3)
    queries = RNG.standard_normal((5, 12)).astype(np.float32)
    np.testing.assert_allclose(table.scores(queries), queries @ dense.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(table.gram(), dense.T @ dense, rtol=1e-4, atol=1e-3)
    assert table.nbytes == table.sparse.nbytes + table.basis.nbytes == sum(table.breakdown().values())
    save_table(table, tmp_path / "t")
    np.testing.assert_array_equal(load_table(tmp_path / "t").lookup(IDS), table.lookup(IDS))
    np.testing.assert_array_equal(table[10:20].lookup([3]), table.lookup([13]))
    with pytest.raises(DataError, match="rows of B"):
        FactoredTable(pack(VALUES), pack(VALUES))


def test_a_factored_lookup_of_many_ids_holds_few_rows_of_s():
    picked = sp.csr_array((np.ones(3000), (np.arange(3000), np.arange(3000) % 2048)), shape=(3000, 2048))
    table = FactoredTable(pack(picked), pack(np.ones((2048, 8))))
    table.lookup([0])
    tracemalloc.start()
    table.lookup(np.arange(3000))
    assert tracemalloc.get_traced_memory()[1] < 1_000_000  # S's rows would be 24 MB
    tracemalloc.stop()


def test_a_factored_table_is_sharded(tmp_path):
    basis = pack(RNG.standard_normal((32, 4)).astype(np.float32))
    table = FactoredTable(pack(VALUES, fallback="mean"), basis)
    save_table(table, tmp_path / "t", shard_bytes=2000)
    again = load_table(tmp_path / "t")
    assert len(again.shards) > 2
    np.testing.assert_allclose(again.lookup(IDS), table.lookup(IDS), rtol=1e-5)

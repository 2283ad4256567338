"""What pruned and unknown ids return."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.tables import Mask, ShardedTable, load_table, pack, save_table
from recsparse.tables.fallback import Features, GroupMean, HashBucket, Mean, bucket_of
from tests.tables.damage import damage

R, D = 40, 6
RNG = np.random.default_rng(8)
VALUES = RNG.standard_normal((R, D)).astype(np.float32)
STORED = np.arange(R) % 3 != 0
GROUPS = np.arange(R) // 10
FEATURES = sp.random_array((R, 5), density=0.5, rng=RNG, format="csr")


def fallbacks():
    return {
        "zero": "zero",
        "mean": "mean",
        "group-mean": GroupMean.fit(VALUES, GROUPS, STORED),
        "hash": HashBucket.fit(VALUES, STORED, 4),
        "features": Features.fit(VALUES, FEATURES, STORED, 0.5),
    }


def expected(kind, ids):
    """By the definitions."""
    weights = np.linalg.solve(
        (FEATURES[STORED].T @ FEATURES[STORED]).toarray() + 0.5 * np.eye(5), FEATURES[STORED].T @ VALUES[STORED]
    )
    for row in ids:
        known = 0 <= row < R
        if kind == "zero":
            yield np.zeros(D)
        elif kind == "mean":
            yield VALUES[STORED].mean(axis=0)
        elif kind == "group-mean":
            yield VALUES[STORED & ((GROUPS[row] if known else 3) == GROUPS)].mean(axis=0)
        elif kind == "hash":
            pruned = np.flatnonzero(~STORED)
            yield VALUES[pruned[bucket_of(pruned, 4) == bucket_of(np.array([row]), 4)[0]]].mean(axis=0)
        else:
            yield FEATURES.toarray()[row] @ weights if known else np.zeros(D)


@pytest.mark.parametrize("kind", fallbacks())
@pytest.mark.parametrize("layout", ["rows", "bitmap", "csr", "combination"])
def test_pruned_and_unknown_ids_return_the_fallback(tmp_path, kind, layout):
    table = pack(VALUES, Mask.from_rows(STORED, D), layout=layout, fallback=fallbacks()[kind])
    ids = np.array([0, 3, 39, -1, R, R + 5])
    np.testing.assert_allclose(table.lookup(ids), list(expected(kind, ids)), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(table.lookup(np.flatnonzero(STORED)), VALUES[STORED])
    save_table(table, tmp_path / "t")
    loaded = load_table(tmp_path / "t")
    np.testing.assert_array_equal(loaded.lookup(ids), table.lookup(ids))
    assert loaded.breakdown() == table.breakdown()
    np.testing.assert_array_equal(table[7:33].lookup(np.arange(26)), table.lookup(np.arange(7, 33)))
    shards = ShardedTable((table[:7], table[7:33][:20], table[27:]))
    for unknown in (-np.arange(1, 20), np.array([-(2**63), 2**63 - 1, R, R + 9])):
        np.testing.assert_array_equal(shards.lookup(unknown), table.lookup(unknown))
        negative = unknown[unknown < 0]
        np.testing.assert_array_equal(table[7:33].lookup(negative), table.lookup(negative))


def test_features_embed_rows_never_seen():
    fallback = fallbacks()["features"]
    np.testing.assert_allclose(fallback.embed(FEATURES[:2]), FEATURES[:2] @ fallback.embeddings, rtol=1e-5)
    with pytest.raises(DataError, match="features"):
        fallback.embed(FEATURES[:, :3])


def test_only_the_features_of_the_rows_asked_for_are_read():
    features = sp.random_array((70_000, 50), density=0.4, rng=RNG, format="csr")  # 11 MB of features
    values = np.ones((70_000, 2), dtype=np.float32)
    stored = np.arange(70_000) % 2 > 0
    table = pack(values, Mask.from_rows(stored, 2), fallback=Features.fit(values, features, stored))
    table.lookup([0])
    tracemalloc.start()
    row = table.lookup([68_000])
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    np.testing.assert_allclose(row, features[[68_000]] @ table.fallback.embeddings, rtol=1e-5)


@pytest.mark.parametrize("part", ["indptr", "features"])
def test_damaged_features_are_noticed_and_nothing_outside_is_read(part):
    fallback = fallbacks()["features"]
    noise = np.full(len(getattr(fallback, part)), 2**32 - 1, dtype=np.uint32)
    table = pack(VALUES, Mask.from_rows(STORED, D), fallback=replace(fallback, **{part: noise}))
    with pytest.raises(FormatError, match="features"):
        table.lookup(np.arange(R))


def test_a_dense_layout_cannot_tell_pruned_rows():
    with pytest.raises(DataError, match="rows"):
        pack(VALUES, Mask.from_rows(STORED, D), layout="dense", fallback="mean")


def test_a_fallback_that_does_not_fit_the_table_is_refused():
    mask = Mask.from_rows(STORED, D)
    fits = {kind: fallback for kind, fallback in fallbacks().items() if not isinstance(fallback, str)}
    for kind in ("group-mean", "features"):
        with pytest.raises(DataError, match=f"{kind} fallback does not fit .* made for 40 rows"):
            pack(VALUES[:30], Mask.from_rows(STORED[:30], D), fallback=fits[kind])
    for fallback in (Mean(np.zeros(D - 1, np.float32)), Mean(np.zeros(D - 2)), *fits.values()):
        with pytest.raises(DataError, match="does not fit a table"):
            pack(VALUES[:, 1:-1], Mask.from_rows(STORED, D - 2), fallback=fallback)
    with pytest.raises(ConfigError, match="fallback is 3"):
        pack(VALUES, mask, fallback=3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_fallback_with_numbers_that_are_not_finite_is_refused(bad):
    for fallback, name in (
        (Mean(np.full(D, bad, np.float32)), "vector"),
        (replace(fallbacks()["group-mean"], means=np.full((4, D), bad, np.float32)), "means"),
        (replace(fallbacks()["hash"], vectors=np.full((4, D), bad, np.float32)), "vectors"),
        (replace(fallbacks()["features"], embeddings=np.full((5, D), bad, np.float32)), "embeddings"),
    ):
        with pytest.raises(DataError, match=f"number of fallback.{name} at .* is {bad}"):
            pack(VALUES, Mask.from_rows(STORED, D), fallback=fallback)


def test_hash_buckets_are_spread_evenly():
    counts = np.bincount(bucket_of(np.arange(100_000), 100), minlength=100)
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


@pytest.mark.parametrize("kind", ["mean", "group-mean", "hash", "features"])
def test_a_damaged_fallback_opened_without_checks_never_reads_outside(tmp_path, kind):
    path = tmp_path / "t"
    table = pack(VALUES, Mask.from_rows(STORED, D), layout="rows", fallback=fallbacks()[kind])
    refused = set()
    for name in table.fallback.tensors():
        for seed in range(20):
            save_table(table, path)
            damage(path, name, np.random.default_rng(seed))
            loaded = load_table(path, verify=False)
            for lookup in (loaded.lookup, lambda ids, whole=loaded: whole[2:35].lookup(ids)):
                try:
                    assert lookup(np.arange(-2, R + 2)).shape == (R + 4, D)
                except FormatError:
                    refused.add(name)
    assert refused == ({"fallback.indptr", "fallback.features"} if kind == "features" else set())


def test_there_may_be_no_features():
    nothing = Features.fit(VALUES, sp.csr_array((R, 0)), STORED)
    assert not pack(VALUES, Mask.from_rows(STORED, D), layout="rows", fallback=nothing).lookup([0, 3]).any()

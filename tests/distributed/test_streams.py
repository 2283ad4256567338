"""Batches do not depend on the ranks, and an epoch gives every interaction once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from recsparse.distributed.process import joined
from recsparse.distributed.rows import balanced_placement
from recsparse.distributed.select import on_each_rank, select_best
from recsparse.distributed.streams import Streams, scan
from recsparse.interactions import Interactions, write
from recsparse.interactions import store as storage
from recsparse.sparsity.allocation import best


@pytest.mark.parametrize("group_entries", [7, 1 << 18])
def test_any_number_of_ranks_gives_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_entries: int
) -> None:
    monkeypatch.setattr(storage, "GROUP_ENTRIES", group_entries)
    matrix = sp.csr_array((np.random.default_rng(0).random((50, 40)) < 0.2).astype(np.float32))
    write(Interactions.from_csr(matrix), tmp_path / "data")
    with joined(10):
        contents = scan(tmp_path / "data", 0, 1)
    assert contents.users.tolist() == np.diff(matrix.indptr).tolist()
    assert contents.items.tolist() == np.bincount(matrix.indices, minlength=40).tolist()

    def streams(rank: int = 0, world: int = 1) -> Streams:
        return Streams(
            tmp_path / "data", contents, streams=6, batch_size=32, n_negatives=2, seed=1, rank=rank, world=world
        )

    one = streams()
    whole = [one.batch(3, step) for step in range(one.steps)]
    for world in (2, 3, 5, 6):
        ranks = [streams(rank, world) for rank in range(world)]
        for step in reversed(range(one.steps)):  # any step can be taken without those before it
            parts = [rank.batch(3, step) for rank in ranks]
            np.testing.assert_array_equal(np.concatenate([part.users for part in parts]), whole[step].users)
            np.testing.assert_array_equal(np.concatenate([part.items for part in parts]), whole[step].items)
    users = np.concatenate([batch.users for batch in whole])
    items = np.concatenate([batch.items for batch in whole])
    assert len(set(zip(users, items[:, 0], strict=True))) == len(users) == matrix.nnz
    assert matrix[users, items[:, 0]].all()
    assert not matrix[users[:, None], items[:, 1:]].sum()
    other = np.concatenate([one.batch(4, step).items for step in range(one.steps)])
    assert (other != items).any()
    assert max(len(batch.users) for batch in whole) <= 32 + 6


def test_negatives_are_drawn_from_those_that_may_be(tmp_path: Path) -> None:
    matrix = sp.csr_array((np.random.default_rng(0).random((50, 40)) < 0.2) * (np.arange(40) % 3 > 0) * 1.0)
    write(Interactions.from_csr(matrix), tmp_path / "data")
    with joined(10):
        contents = scan(tmp_path / "data", 0, 1)
    warm = np.flatnonzero(contents.items)
    streams = Streams(tmp_path / "data", contents, streams=3, batch_size=64, n_negatives=4, seed=0, drawable=warm)
    drawn = np.concatenate([streams.batch(0, step).items[:, 1:].ravel() for step in range(streams.steps)])
    assert set(drawn) == set(warm)


def test_a_user_with_nearly_everything_gets_what_is_left(tmp_path: Path) -> None:
    matrix = np.ones((2, 30), dtype=np.float32)
    matrix[0, 17] = 0
    write(Interactions.from_csr(sp.csr_array(matrix)), tmp_path / "data")
    with joined(10):
        contents = scan(tmp_path / "data", 0, 1)
    streams = Streams(tmp_path / "data", contents, streams=1, batch_size=100, n_negatives=1, seed=0)
    batch = streams.batch(0, 0)
    assert set(batch.users) == {0}  # user 1 has all items: samples that find no negative are left out
    assert set(batch.items[:, 1]) == {17}


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.5, -1.0, -np.inf, 1e-300]), min_size=1, max_size=40), st.data())
def test_the_radix_search_selects_what_sorting_selects(scores: list[float], data: Any) -> None:
    values = np.array(scores)
    k = data.draw(st.integers(0, len(values)))
    chosen = select_best(values, np.arange(len(values)), k, on_each_rank)
    assert chosen.sum() == min(k, np.isfinite(values).sum())
    assert set(np.flatnonzero(chosen)) == set(best(values, k))


@given(st.integers(2, 300), st.integers(2, 6))
def test_balanced_placement_shares_out_the_popular_ids(n: int, shards: int) -> None:
    counts = np.maximum(1, 1000 // np.arange(1, n + 1))
    rows = balanced_placement(counts).numpy()
    assert sorted(rows) == list(range(n))
    block = -(-n // shards)
    top = np.bincount(rows[: n // 2] // block, minlength=shards)[: n // block]
    assert top.max(initial=0) - top.min(initial=n) <= 2 + block // 8

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from recsparse.errors import DataError
from recsparse.evaluation import rank_targets
from recsparse.interactions.interactions import Interactions
from recsparse.kernels.metrics import NAN_SCORE, SEEN_TARGET, target_ranks
from recsparse.models.popularity import Popularity


def ranks_by_sorting(scores, seen, targets):
    """Independent: sort one user's unseen scores; the first place of a target's equals, and how many these are."""
    order = sorted(-scores[item] for item in range(len(scores)) if item not in seen)
    return [(order.index(-scores[item]) + 1, order.count(-scores[item])) for item in targets]


def ranked(scores, seen, targets):
    items, ranks, ties = np.zeros(len(targets), dtype=np.int32), *np.zeros((2, len(targets)), dtype=np.int64)
    wrong = np.zeros(1, dtype=np.int8)
    target_ranks(
        scores, np.array([0, len(seen)]), np.array(seen, dtype=np.int32), np.array([0, len(targets)]),
        np.array(targets, dtype=np.int32), items, ranks, ties, wrong, 0, 1,
    )  # fmt: skip
    return items, ranks, ties, wrong[0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_kernel_ranks_as_sorting_does_ties_included(data):
    n_items = data.draw(st.integers(2, 40))
    scores = data.draw(st.lists(st.integers(-3, 3), min_size=n_items, max_size=n_items))
    kinds = data.draw(st.lists(st.sampled_from(["seen", "target", "other"]), min_size=n_items, max_size=n_items))
    seen = [item for item, kind in enumerate(kinds) if kind == "seen"]
    targets = [item for item, kind in enumerate(kinds) if kind == "target"]
    items, ranks, ties, wrong = ranked(np.array([scores], dtype=np.float32), seen, targets)
    expected = dict(zip(targets, ranks_by_sorting(scores, set(seen), targets), strict=True))
    assert list(zip(ranks, items, strict=True)) == sorted((expected[item][0], item) for item in targets)
    assert [expected[item] for item in items] == list(zip(ranks, ties, strict=True))
    assert not wrong


def test_kernel_counts_exactly_in_a_large_catalogue():
    scores = np.random.default_rng(0).permutation(20_001).astype(np.float32)[None]
    targets = [0, 4095, 4096, 20_000]
    items, ranks, ties, _ = ranked(scores, [], targets)
    assert ranks.tolist() == sorted((20_001 - scores[0, targets]).astype(int).tolist())
    assert ranks.tolist() == (20_001 - scores[0, items]).astype(int).tolist()
    assert (ties == 1).all()
    for item in (3, 19_999, 20_000):  # in a vector of sixteen, in the last one, and after it
        broken = scores.copy()
        broken[0, item] = np.nan
        assert ranked(broken, [], targets)[3] == NAN_SCORE


def test_infinite_scores_rank_like_any_other_and_nan_is_reported():
    scores = np.array([[-np.inf, np.inf, 0, -np.inf]], dtype=np.float32)
    assert [found.tolist() for found in ranked(scores, [], [1, 3])[1:3]] == [[1, 3], [1, 2]]
    assert [found.tolist() for found in ranked(scores, [0], [3])[1:3]] == [[3], [1]]
    assert ranked(scores, [3], [3])[3] == SEEN_TARGET
    scores[0, 2] = np.nan
    assert ranked(scores, [2], [3])[3] == NAN_SCORE


@pytest.mark.parametrize("levels", [None, 3])
def test_blocks_and_threads_change_nothing(random_case, levels):
    model, holdout = random_case(levels=levels)
    whole = rank_targets(model, holdout.history, holdout.target)
    pieces = rank_targets(model, holdout.history, holdout.target, block_bytes=4 * 60 * 7, n_jobs=2)
    np.testing.assert_array_equal(whole.ranks, pieces.ranks)
    np.testing.assert_array_equal(whole.ties, pieces.ties)
    np.testing.assert_array_equal(whole.items, pieces.items)
    scores = model.scores(holdout.history.matrix)
    for user in range(whole.n_users):
        seen, targets = holdout.history.matrix[[user]].indices, holdout.target.matrix[[user]].indices
        expected = ranks_by_sorting(scores[user], set(seen), targets)
        found = slice(whole.indptr[user], whole.indptr[user + 1])
        places = zip(whole.ranks[found], whole.ties[found], strict=True)
        assert dict(zip(whole.items[found], places, strict=True)) == dict(zip(targets, expected, strict=True))
        assert whole.candidates[user] == 60 - len(seen)


def test_a_user_without_history_gets_what_recommend_gives(holdout_of):
    model = Popularity().fit(sp.csr_array([[1, 1, 0], [0, 1, 0], [0, 1, 1]]))
    model.popularity_ = np.array([1, 3, 2], dtype=np.float32)
    ranking = rank_targets(model, *vars(holdout_of([[0, 0, 0]], [[0, 0, 1]])).values())
    assert ranking.ranks.tolist() == [2]


def test_restrict_keeps_the_ranks(random_case):
    model, holdout = random_case(levels=3)
    ranking = rank_targets(model, holdout.history, holdout.target)
    odd = np.arange(60) % 2 == 1
    kept = ranking.restrict(odd)
    assert kept.items.tolist() == ranking.items[odd[ranking.items]].tolist()
    assert kept.ranks.tolist() == ranking.ranks[odd[ranking.items]].tolist()
    assert kept.ties.tolist() == ranking.ties[odd[ranking.items]].tolist()
    assert kept.targets.sum() == len(kept.ranks)


def test_among_some_is_the_ranking_of_a_catalogue_of_these(random_case):
    model, holdout = random_case(levels=3)
    some = np.arange(60) % 3 == 0
    ranking = rank_targets(model, holdout.history, holdout.target, among=some)
    scores = model.scores(holdout.history.matrix)
    for user in range(ranking.n_users):
        seen, targets = holdout.history.matrix[[user]].indices, holdout.target.matrix[[user]].indices
        targets = targets[some[targets]]
        expected = ranks_by_sorting(scores[user], set(seen) | set(np.flatnonzero(~some)), targets)
        found = slice(ranking.indptr[user], ranking.indptr[user + 1])
        places = zip(ranking.ranks[found], ranking.ties[found], strict=True)
        assert dict(zip(ranking.items[found], places, strict=True)) == dict(zip(targets, expected, strict=True))
        assert ranking.candidates[user] == some.sum() - some[seen].sum()


def test_targets_already_seen_are_refused(by_table, holdout_of):
    model = by_table(np.eye(3)).fit(sp.csr_array(np.ones((1, 3))))
    holdout = holdout_of([[1, 0, 0], [0, 1, 0]], [[0, 1, 0], [0, 1, 0]])
    with pytest.raises(DataError, match="A target of user 'held-1' was seen already"):
        rank_targets(model, holdout.history, holdout.target)


def test_nan_scores_are_refused_with_the_user(by_table, holdout_of):
    weights = np.eye(3)
    weights[1, 2] = np.nan
    model = by_table(weights).fit(sp.csr_array(np.ones((1, 3))))
    holdout = holdout_of([[1, 0, 0], [0, 1, 0]], [[0, 1, 0], [1, 0, 0]])
    with pytest.raises(DataError, match="NaN scores for user 'held-"):
        rank_targets(model, holdout.history, holdout.target)


def test_other_users_and_unknown_items_are_refused(by_table, holdout_of):
    model = by_table(np.eye(3)).fit(sp.csr_array(np.ones((1, 3))))
    holdout = holdout_of([[1, 0, 0]], [[0, 1, 0]])
    other = Interactions(holdout.target.matrix, pa.table({"user_id": ["somebody"]}), holdout.target.items)
    with pytest.raises(DataError, match="same users"):
        rank_targets(model, holdout.history, other)
    foreign = holdout_of([[1, 0, 0]], [[0, 1, 0]], items=pa.table({"item_id": [0, 99, 2]}))
    with pytest.raises(DataError, match="catalogue lacks items of 1 targets"):
        rank_targets(model, foreign.history, foreign.target)

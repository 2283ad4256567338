import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from recsparse.errors import ConfigError
from recsparse.evaluation import Ranking, per_user, rank_targets


def ranking_of(*ranks, candidates=20):
    """One ranking with a user for each tuple of ranks."""
    indptr = np.cumsum([0, *map(len, ranks)])
    flat = np.array([rank for one in ranks for rank in sorted(one)], dtype=np.int64)
    return Ranking(indptr, flat, np.ones_like(flat), np.zeros(len(flat), np.int32), np.full(len(ranks), candidates), 25)


HAND = {
    "ndcg@3": (1 / math.log2(2) + 1 / math.log2(4)) / (1 + 1 / math.log2(3) + 1 / math.log2(4)),
    "ndcg": (1 / math.log2(2) + 1 / math.log2(4) + 1 / math.log2(8) + 1 / math.log2(13))
    / (1 + 1 / math.log2(3) + 1 / math.log2(4) + 1 / math.log2(5)),
    "recall@3": 2 / 4,
    "recall_capped@3": 2 / 3,
    "recall_capped@10": 3 / 4,
    "precision@3": 2 / 3,
    "map@3": (1 / 1 + 2 / 3) / 3,
    "map": (1 / 1 + 2 / 3 + 3 / 7 + 4 / 12) / 4,
    "mrr": 1.0,
    "hit@3": 1.0,
    "r_precision": 2 / 4,
    "auc": ((16 - 0) + (16 - 1) + (16 - 4) + (16 - 8)) / (4 * 16),
}


@pytest.mark.parametrize("metric", HAND)
def test_hand_arithmetic(metric):
    assert per_user(ranking_of((1, 3, 7, 12)), metric)[0] == pytest.approx(HAND[metric], abs=1e-12)


def test_first_hit_below_the_cut_off():
    late = ranking_of((4, 6))
    assert per_user(late, "mrr")[0] == 1 / 4
    for metric in ("mrr@3", "hit@3", "ndcg@3", "map@3", "recall@3", "precision@3"):
        assert per_user(late, metric)[0] == 0.0


@pytest.mark.parametrize("metric", HAND)
def test_a_user_without_target_is_nan_and_a_perfect_one_is_one(metric):
    values = per_user(ranking_of((1, 2, 3), (), (1, 2, 3)), metric)
    assert np.isnan(values[1])
    expected = 1.0 if metric != "precision@3" else 3 / 3
    assert values[0] == values[2] == pytest.approx(expected)


def test_auc_is_nan_where_every_unseen_item_is_a_target():
    assert np.isnan(per_user(ranking_of((1, 2), candidates=2), "auc")[0])


def in_order(metric, order, targets):
    """Independent: one metric of one user whose items stand in this order."""
    name, _, k = metric.partition("@")
    k, n = int(k or len(order)), len(targets)
    hits = [item in targets for item in order]
    if name == "auc":
        pairs = [(a, b) for a in range(len(order)) for b in range(len(order)) if hits[a] and not hits[b]]
        return sum(a < b for a, b in pairs) / len(pairs)
    first = [place for place, hit in enumerate(hits, 1) if hit and place <= k]
    return {
        "ndcg": lambda: (
            sum(1 / math.log2(place + 1) for place in first)
            / sum(1 / math.log2(place + 1) for place in range(1, min(k, n) + 1))
        ),
        "recall": lambda: len(first) / n,
        "recall_capped": lambda: len(first) / min(k, n),
        "precision": lambda: len(first) / k,
        "map": lambda: sum((number + 1) / place for number, place in enumerate(first)) / min(k, n),
        "mrr": lambda: 1 / first[0] if first else 0.0,
        "hit": lambda: float(bool(first)),
        "r_precision": lambda: sum(hits[:n]) / n,
    }[name]()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ties_count_as_the_mean_over_all_their_orders(data):
    n = data.draw(st.integers(2, 6))
    scores = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    targets = data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=n - 1))
    rows = sorted((1 + sum(other > scores[item] for other in scores), scores.count(scores[item])) for item in targets)
    ranks, ties = (np.array(column) for column in zip(*rows, strict=True))
    ranking = Ranking(np.array([0, len(ranks)]), ranks, ties, np.zeros(len(ranks), np.int32), np.array([n]), n)
    orders = [
        order
        for order in itertools.permutations(range(n))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    for metric in ("mrr@2", "hit@2", "recall@1", *HAND):
        expected = sum(in_order(metric, order, targets) for order in orders) / len(orders)
        assert per_user(ranking, metric)[0] == pytest.approx(expected, abs=1e-12), metric


def dense(model, holdout):
    """Scores and relevance of unseen items only, a pair of arrays a user."""
    scores = model.scores(holdout.history.matrix).astype(np.float64)
    for user in range(len(scores)):
        unseen = np.setdiff1d(np.arange(scores.shape[1]), holdout.history.matrix[[user]].indices)
        yield scores[user, unseen], holdout.target.matrix[[user]].toarray()[0, unseen] > 0


@pytest.mark.parametrize("levels", [None, 4])
def test_ndcg_and_auc_are_scikit_learns(random_case, levels):
    model, holdout = random_case(seed=3, levels=levels)
    ranking = rank_targets(model, holdout.history, holdout.target)
    for k in (1, 5, 20):
        ours = per_user(ranking, f"ndcg@{k}")
        for user, (scores, relevant) in enumerate(dense(model, holdout)):
            if relevant.any():
                assert ours[user] == pytest.approx(ndcg_score([relevant], [scores], k=k), abs=1e-9)
            else:
                assert np.isnan(ours[user])
    for user, (scores, relevant) in enumerate(dense(model, holdout)):
        if relevant.any():
            assert per_user(ranking, "auc")[user] == pytest.approx(roc_auc_score(relevant, scores), abs=1e-9)


RANX = """
import json, sys
from ranx import Qrels, Run, evaluate
qrels, run, names = json.load(sys.stdin)
json.dump({name: list(evaluate(Qrels(qrels), Run(run), name, return_mean=False)) for name in names}, sys.stdout)
"""


def test_all_are_ranxs(random_case):
    """Ranx takes a minute to compile, so it runs uncompiled. Its MAP@k divides by all targets, ours by min(k, |T|)."""
    model, holdout = random_case(seed=5)
    ranking = rank_targets(model, holdout.history, holdout.target)
    qrels, run = {}, {}
    for user, (scores, relevant) in enumerate(dense(model, holdout)):
        if relevant.any():
            qrels[str(user)] = {str(item): 1 for item in np.flatnonzero(relevant)}
            run[str(user)] = {str(item): float(score) for item, score in enumerate(scores)}
    users = [int(user) for user in sorted(qrels)]
    names = {
        "ndcg@10": "ndcg@10", "recall@10": "recall@10", "precision@10": "precision@10", "map": "map", "mrr": "mrr",
        "hit@10": "hit_rate@10", "r_precision": "r-precision", "map@10": "map@10",
    }  # fmt: skip
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RANX], input=json.dumps([qrels, run, list(names.values())]), text=True,
        capture_output=True, check=True, env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )  # fmt: skip
    theirs = json.loads(answer.stdout)
    for ours, name in names.items():
        values = per_user(ranking, ours)[users]
        if ours == "map@10":
            values = values * np.minimum(ranking.targets[users], 10) / ranking.targets[users]
        np.testing.assert_allclose(values, theirs[name], atol=1e-9, err_msg=ours)


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("ndgc@10", "no metric 'ndgc@10'"),
        ("recall", "needs a cut-off"),
        ("auc@10", "whole ranking"),
        ("ndcg@0", "no metric"),
    ],
)
def test_impossible_metrics_are_refused(metric, says):
    with pytest.raises(ConfigError, match=says):
        per_user(ranking_of((1,)), metric)

import numpy as np
import pytest
from scipy import stats

from recsparse.errors import DataError
from recsparse.evaluation import evaluate, holm, paired, summarise


def test_interval_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).gamma(1.0, 1.0, 400)
    [ours] = summarise(values[:, None], n_resamples=20_000, seed=1)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=2).confidence_interval
    assert ours.mean == pytest.approx(values.mean(), abs=1e-12)
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=0.004), pytest.approx(theirs.high, abs=0.004))


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.random((60, 300))  # 300 experiments of 60 users, mean 0.5
    covered = [one.low <= 0.5 <= one.high for one in summarise(samples, n_resamples=400)]
    assert 0.90 <= np.mean(covered) <= 0.985


def test_missing_values_are_left_out_and_counted():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    first, nothing = summarise(values)
    assert (first.mean, first.users, first.without) == (2.0, 2, 1)
    assert 1.0 <= first.low <= first.high <= 3.0
    assert np.isnan(nothing.mean)
    assert (nothing.users, nothing.without) == (0, 3)


def test_paired_is_scipys(random_case):
    model, holdout = random_case(seed=1)
    other, _ = random_case(seed=2)
    a, b = evaluate(model, holdout, ["ndcg@10"], name="a"), evaluate(other, holdout, ["ndcg@10"], name="b")
    [found] = paired(a, b, n_permutations=4999)
    x, y = a.values("ndcg@10"), b.values("ndcg@10")
    there = ~np.isnan(x)
    assert found.users == there.sum() < len(x)
    assert found.difference == pytest.approx(np.mean(x[there] - y[there]), abs=1e-12)
    assert found.p_t == pytest.approx(stats.ttest_rel(x[there], y[there]).pvalue)
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(x[there], y[there]).pvalue)
    assert found.p_permutation == pytest.approx(found.p_t, abs=0.05)
    assert found.wins == (x > y).sum()
    assert found.losses == (x < y).sum()
    assert found.low < found.difference < found.high
    [back] = paired(b, a)
    assert back.difference == pytest.approx(-found.difference)


def test_a_model_against_itself_is_no_evidence(random_case):
    model, holdout = random_case()
    a = evaluate(model, holdout)
    for found in paired(a, a, n_permutations=99):
        assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
        assert found.p_t == found.p_wilcoxon == found.p_permutation == found.p_holm == 1.0


def test_holm_by_hand(random_case):
    model, holdout = random_case()
    [one] = paired(*[evaluate(model, holdout, ["mrr"])] * 2)
    given = [0.01, 0.04, 0.03, np.nan, 0.5]
    corrected = [found.p_holm for found in holm([replace_p(one, p) for p in given])]
    # of four tests: 4 x .01, then 3 x .03, then 2 x .04 (at least the former), then .5
    np.testing.assert_allclose(corrected, [0.04, 0.09, 0.09, np.nan, 0.5])


def replace_p(difference, p):
    return type(difference)(**{**difference.to_dict(), "p_t": p})


def test_different_splits_or_roles_are_refused(random_case):
    model, holdout = random_case(seed=1)
    _, elsewhere = random_case(seed=2)
    here, there = evaluate(model, holdout, name="here"), evaluate(model, elsewhere, name="there")
    with pytest.raises(DataError, match="different splits"):
        paired(here, there)
    with pytest.raises(DataError, match="like with like"):
        paired(here, evaluate(model, holdout, role="validation"))
    with pytest.raises(DataError, match="no metric in common"):
        paired(here, evaluate(model, holdout, ["mrr"]))

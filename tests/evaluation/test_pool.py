import numpy as np
import pytest

from recsparse.errors import DataError
from recsparse.evaluation import evaluate, paired
from recsparse.evaluation.pool import pool, seed_spread


def test_the_user_is_the_unit(random_case):
    model, holdout = random_case(seed=1)
    others = [random_case(seed=seed)[0] for seed in (2, 3)]
    seeds = [evaluate(one, holdout, ["ndcg@10"], name=f"s{number}") for number, one in enumerate((model, *others))]
    whole = pool(seeds, name="three seeds")
    assert whole.n_users == holdout.history.shape[0]
    order = np.argsort(holdout.target.user_ids.astype(str))
    expected = np.mean([one.values("ndcg@10") for one in seeds], axis=0)[order]
    np.testing.assert_allclose(whole.values("ndcg@10"), expected)
    assert whole.split == seeds[0].split
    assert seed_spread(seeds, "ndcg@10") == pytest.approx(
        np.std([one.summaries["ndcg@10"].mean for one in seeds], ddof=1)
    )
    assert np.isnan(seed_spread(seeds[:1], "ndcg@10"))


def test_copies_of_one_seed_give_no_more_certainty(random_case):
    model, holdout = random_case()
    one = pool([evaluate(model, holdout, ["mrr"])])
    five = pool([evaluate(model, holdout, ["mrr"])] * 5)
    assert five.summaries["mrr"] == one.summaries["mrr"]
    other = pool([evaluate(random_case(seed=9)[0], holdout, ["mrr"])])
    [few], [many] = paired(one, other), paired(five, other)
    assert many.p_t == pytest.approx(few.p_t)


def test_splits_are_pooled_by_user_and_only_like_with_like(random_case):
    model, holdout = random_case(seed=1)
    _, elsewhere = random_case(seed=2, n_users=60)
    both = pool([evaluate(model, part, ["mrr"]) for part in (holdout, elsewhere)])
    assert both.n_users == 60
    assert both.split not in {evaluate(model, holdout).split, evaluate(model, elsewhere).split}
    with pytest.raises(DataError, match="has no ranks"):
        both.values("ndcg@10")
    with pytest.raises(DataError, match="pool both"):
        paired(pool([evaluate(model, holdout, ["mrr"])]), evaluate(model, holdout, ["mrr"]))
    with pytest.raises(DataError, match="like with like"):
        pool([evaluate(model, holdout, ["mrr"]), evaluate(model, holdout, ["auc"])])
    with pytest.raises(DataError, match="no evaluation to pool"):
        pool([])

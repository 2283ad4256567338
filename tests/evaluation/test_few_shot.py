import numpy as np
import pandas as pd
import pytest

from recsparse.errors import ConfigError
from recsparse.evaluation import evaluate, few_shot_curve, first_items
from recsparse.interactions.interactions import Interactions


def test_first_items_by_time():
    frame = pd.DataFrame({"user_id": [1, 1, 1, 2, 2], "item_id": [7, 8, 9, 7, 9], "time": [30, 10, 20, 2, 1]})
    history = Interactions.from_frame(frame, time="time")
    assert first_items(history, 2).to_frame()["item_id"].tolist() == [8, 9, 7, 9]
    assert first_items(history, 1).to_frame()["item_id"].tolist() == [8, 9]
    assert first_items(history, 0).nnz == 0
    assert first_items(history, 9).nnz == 5
    with pytest.raises(ConfigError, match="-1"):
        first_items(history, -1)


def test_without_times_a_seeded_nested_sample(random_case):
    _, holdout = random_case()
    two, three = first_items(holdout.history, 2, seed=4), first_items(holdout.history, 3, seed=4)
    assert (two.matrix.toarray() <= three.matrix.toarray()).all()
    assert (np.diff(two.matrix.indptr) == np.minimum(np.diff(holdout.history.matrix.indptr), 2)).all()
    assert (first_items(holdout.history, 2, seed=5).matrix != two.matrix).nnz > 0


def test_users_targets_and_candidates_stay(random_case):
    model, holdout = random_case()
    curve = few_shot_curve(model, holdout, (0, 1, 50), ["ndcg@10", "recall@5"])
    whole = evaluate(model, holdout, ["ndcg@10", "recall@5"])
    for evaluation in curve.values():
        assert evaluation.per_user["user_id"].equals(whole.per_user["user_id"])
        assert evaluation.per_user["candidates"].equals(whole.per_user["candidates"])
    assert curve[50].summaries == whole.summaries  # nobody has so many, so this is everything
    assert curve[1].per_user["history"].to_pylist() == [1] * 40
    assert curve[0].values("ndcg@10").tolist() != curve[1].values("ndcg@10").tolist()

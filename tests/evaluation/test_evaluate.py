import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.evaluation import Evaluation, evaluate, split_digest
from recsparse.interactions.interactions import USER, Interactions
from recsparse.interactions.split import Holdout
from recsparse.models.popularity import Popularity


def test_popularity_exactly(holdout_of):
    """Popularity is deterministic, so its figures prove the evaluator: worked out by hand."""
    model = Popularity().fit(sp.csr_array([[1, 1, 0, 1, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0]]))  # counts 3 2 1 1 0
    holdout = holdout_of(
        [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]], [[0, 1, 0, 0, 1], [0, 0, 0, 1, 0], [0] * 5]
    )
    # user 0 ranks 1, 2 or 3, 4 and wants 1, 4: ranks 1, 4. User 1 ranks 0, 2 or 3, 4 and wants 3: rank 2 or 3.
    evaluation = evaluate(model, holdout, ["ndcg@3", "recall@3", "mrr"], name="popularity")
    ideal = 1 + 1 / math.log2(3)
    np.testing.assert_allclose(
        evaluation.values("ndcg@3"), [1 / ideal, (1 / math.log2(3) + 1 / math.log2(4)) / 2, np.nan], atol=1e-12
    )
    np.testing.assert_allclose(evaluation.values("recall@3"), [0.5, 1.0, np.nan])
    summary = evaluation.summaries["mrr"]
    assert (summary.mean, summary.users, summary.without) == (pytest.approx((1 + (1 / 2 + 1 / 3) / 2) / 2), 2, 1)
    assert evaluation.per_user["targets"].to_pylist() == [[1, 4], [3], []]
    assert evaluation.per_user["ranks"].to_pylist() == [[1, 4], [2], []]
    assert evaluation.per_user["ties"].to_pylist() == [[1, 1], [2], []]
    assert evaluation.per_user["candidates"].to_pylist() == [4, 4, 4]


def test_any_metric_can_be_recomputed_from_the_file(tmp_path, random_case):
    model, holdout = random_case()
    evaluation = evaluate(model, holdout, ["ndcg@10"], role="validation", n_resamples=200, seed=3)
    evaluation.save(tmp_path / "users.parquet")
    again = Evaluation.load(tmp_path / "users.parquet")
    pd.testing.assert_frame_equal(again.per_user.to_pandas(), evaluation.per_user.to_pandas())
    assert (again.role, again.split, again.summaries) == ("validation", split_digest(holdout), evaluation.summaries)
    other = evaluate(model, holdout, ["recall@7", "auc"])
    for metric in other.metrics:
        np.testing.assert_array_equal(again.values(metric), other.values(metric))
    np.testing.assert_array_equal(again.ranking(model.items_).items, evaluation.ranking(model.items_).items)


def test_a_damaged_file_says_so(tmp_path):
    (tmp_path / "users.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(FormatError, match="cannot be read as an evaluation"):
        Evaluation.load(tmp_path / "users.parquet")


def test_a_model_fitted_on_the_targets_is_refused(by_table, holdout_of):
    holdout = holdout_of([[1, 0, 0]], [[0, 1, 0]])
    both = Interactions(holdout.history.matrix + holdout.target.matrix, holdout.target.users, holdout.target.items)
    with pytest.raises(DataError, match=r"fitted on 1 of these targets .*'held-0'"):
        evaluate(by_table(np.eye(3)).fit(both), holdout)
    evaluate(by_table(np.eye(3)).fit(holdout.history), holdout)  # the history alone is the weak protocol


def test_equal_seeds_give_equal_intervals_and_unknown_settings_are_refused(random_case):
    model, holdout = random_case()
    assert evaluate(model, holdout, seed=1).summaries == evaluate(model, holdout, seed=1).summaries
    assert evaluate(model, holdout, seed=1).summaries != evaluate(model, holdout, seed=2).summaries
    with pytest.raises(ConfigError, match="no metric"):
        evaluate(model, holdout, ["accuracy"])
    with pytest.raises(ConfigError, match="each once"):
        evaluate(model, holdout, ["mrr", "mrr"])
    with pytest.raises(ConfigError, match="'final'"):
        evaluate(model, holdout, role="final")


def test_the_digest_sees_every_part_of_a_split(holdout_of):
    base = holdout_of([[1, 0, 0]], [[0, 1, 0]])
    same = holdout_of([[1, 0, 0]], [[0, 1, 0]])
    assert split_digest(base) == split_digest(same)
    renamed = Interactions(base.target.matrix, pa.table({"user_id": ["other"]}), base.target.items)
    for other in (
        holdout_of([[0, 0, 1]], [[0, 1, 0]]),
        holdout_of([[1, 0, 0]], [[0, 0, 1]]),
        Holdout(history=base.history, target=renamed),
    ):
        assert split_digest(other) != split_digest(base)


def test_a_notebook_shows_the_figures_and_names_stay_text(random_case):
    model, holdout = random_case()
    evaluation = evaluate(model, holdout, ["mrr"], name="<b>me</b>")
    shown = evaluation._repr_html_()
    assert f"{evaluation.summaries['mrr'].mean:.4f}" in shown
    assert "&lt;b&gt;me" in shown
    assert evaluation.to_frame().loc["mrr", "users"] == evaluation.summaries["mrr"].users


def test_it_shows_itself_in_a_line() -> None:
    model = Popularity().fit(sp.csr_array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]))
    users = pa.table({USER: ["new"]})
    history, target = (
        Interactions(sp.csr_array(np.eye(4, dtype=np.float32)[[item]]), users, model.items_) for item in (1, 2)
    )
    found = evaluate(model, Holdout(history, target), ["mrr"], name="Popularity")
    assert repr(found) == "<Evaluation of Popularity on 1 test users: mrr 0.6111>"

"""Users without a history: evaluate, recommend and score answer them alike."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from recsparse.evaluation import evaluate
from recsparse.evaluation.ranking import best_items
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.models import IALS, FeatureIALS, Popularity
from recsparse.scoring.scorer import Scorer

KINDS = np.arange(40) % 4
ITEMS = pa.table({"item_id": np.arange(40), "kind": [f"kind {kind}" for kind in KINDS]})


@pytest.fixture(scope="module")
def train():
    likes = ((np.arange(80) % 4)[:, None] == KINDS) & (np.random.default_rng(0).random((80, 40)) < 0.6)
    users = pa.table({"user_id": np.arange(80), "taste": [f"kind {n % 4}" for n in range(80)]})
    return Interactions(sp.csr_array(likes.astype(np.float32)), users, ITEMS)


@pytest.fixture
def holdout():
    """Four users who like kind 2: features only; nothing; history only; both. The target is the last of the kind."""
    target, history = np.zeros((4, 40), np.float32), np.zeros((4, 40), np.float32)
    target[:, 38] = 1
    history[2:, [2, 6]] = 1
    users = pa.table({"user_id": [900, 901, 902, 903], "taste": ["kind 2", None, None, "kind 2"]})
    return Holdout(Interactions(sp.csr_array(history), users, ITEMS), Interactions(sp.csr_array(target), users, ITEMS))


@pytest.mark.parametrize("model", [FeatureIALS(dim=8), IALS(dim=8), Popularity()], ids=lambda model: model.kind)
def test_evaluation_recommendation_and_scoring_agree(model, train, holdout):
    model.fit(train)
    expected = best_items(model, holdout.history, 10)
    recommended = model.recommend(histories=holdout.history, k=10)
    scored = Scorer.of(model).top_k(holdout.history, 10).to_pandas()
    np.testing.assert_array_equal(recommended["item_id"].to_numpy().reshape(4, 10), expected)
    np.testing.assert_array_equal(scored["item_id"].to_numpy().reshape(4, 10), expected)
    assert recommended["status"].tolist() == scored["status"].tolist() == ["cold"] * 20 + ["folded-in"] * 20
    ranks = evaluate(model, holdout, ["mrr"]).per_user["ranks"].to_pylist()
    for user, [rank] in enumerate(ranks):
        assert expected[user].tolist().index(38) + 1 == rank if rank <= 10 else 38 not in expected[user]


def test_features_answer_those_who_have_some_and_popularity_the_rest(train, holdout):
    model = FeatureIALS(dim=8).fit(train)
    by_popularity = evaluate(Popularity().fit(train), holdout, ["mrr"])
    evaluation = evaluate(model, holdout, ["mrr"])
    assert evaluation.per_user["ranks"][0][0].as_py() <= 10  # ten items are of the kind
    assert (KINDS[best_items(model, holdout.history, 10)[0]] == 2).all()
    assert evaluation.per_user["ranks"][1] == by_popularity.per_user["ranks"][1]
    assert model.unknown(holdout.history.matrix, holdout.history.users).tolist() == [False, True, False, False]
    assert model.unknown(holdout.history.matrix).tolist() == [True, True, False, False]


def test_a_model_without_features_answers_by_popularity(train, holdout):
    model = IALS(dim=8).fit(train)
    ranks = [evaluate(each, holdout, ["mrr"]).per_user["ranks"][:2] for each in (model, Popularity().fit(train))]
    assert ranks[0] == ranks[1]

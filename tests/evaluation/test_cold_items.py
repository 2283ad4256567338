import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.evaluation import evaluate
from recsparse.evaluation.baselines import ContentKNN, Random
from recsparse.evaluation.cold_items import cold_items, evaluate_cold_items, first_of_items, warm_up_curve
from recsparse.evaluation.fallbacks import _solved, evaluate_fallbacks, pruned_rows
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.models.base import Recommender
from recsparse.models.ease import EASE
from recsparse.models.feature_ials import FeatureIALS
from recsparse.models.ials import IALS
from recsparse.models.popularity import Popularity

N_ITEMS, NEW = 40, np.arange(40) % 5 == 0


@pytest.fixture
def world():
    """Users love one of two kinds of items; every fifth item is new; half of the new items' fans arrive later."""
    rng = np.random.default_rng(0)
    kind = np.arange(N_ITEMS) % 2
    items = pa.table({"item_id": np.arange(N_ITEMS), "kind": [f"kind {one}" for one in kind]})
    users = pa.table({"user_id": np.arange(200)})
    likes = rng.random((200, N_ITEMS)) < np.where((np.arange(200) % 2)[:, None] == kind, 0.6, 0.03)
    matrix = sp.csr_array(likes.astype(np.float32))
    whole = Interactions(matrix, users, items, rng.integers(0, 10**6, matrix.nnz))
    owner = np.repeat(np.arange(200), np.diff(matrix.indptr))
    new = NEW[matrix.indices]
    late = owner >= 120
    train = whole.select_entries(~new & ~late).select_users(np.arange(120))
    arriving = whole.select_entries(new & ~late).select_users(np.arange(120))
    test = np.arange(120, 200)
    holdout = Holdout(whole.select_entries(~new).select_users(test), whole.select_entries(new).select_users(test))
    return train, arriving, holdout


def test_features_find_new_items_and_nothing_else_does(world):
    train, _, holdout = world
    figures = {}
    for model in (ContentKNN(), Random(), Popularity(), EASE(reg=10.0)):
        model.fit(train)
        assert (cold_items(model) == NEW).all()
        evaluation = evaluate_cold_items(model, holdout, ["ndcg@3"])
        figures[model.kind] = evaluation.summaries["ndcg@3"].mean
        assert evaluation.per_user["candidates"].to_pylist() == [8] * 80
    assert figures["content-knn"] > 1.5 * max(figures[other] for other in ("random", "popularity"))
    # who scores all new items alike reaches what chance does on average, whatever the order of the rows
    wanted = np.diff(holdout.target.matrix.indptr)
    wanted = wanted[wanted > 0]
    gains = np.concatenate([[0], np.cumsum(1 / np.log2([2, 3, 4]))])
    assert figures["popularity"] == pytest.approx((wanted / 8 * gains[3] / gains[np.minimum(wanted, 3)]).mean())
    assert figures["popularity"] == figures["ease"]


def test_against_all_a_new_item_hardly_gets_through(world):
    train, _, holdout = world
    model = EASE(reg=10.0).fit(train)
    everywhere = evaluate_cold_items(model, holdout, ["ndcg@3"], against="all").summaries["ndcg@3"].mean
    assert everywhere < evaluate_cold_items(model, holdout, ["ndcg@3"]).summaries["ndcg@3"].mean


def test_items_warm_up(world):
    train, arriving, holdout = world
    curve = warm_up_curve(EASE(reg=10.0), train, arriving, holdout, (0, 2, 20), ["ndcg@3"])
    means = [evaluation.summaries["ndcg@3"].mean for evaluation in curve.values()]
    assert means[0] < means[1] < means[2]
    assert means[2] > 1.5 * means[0]


def test_first_of_items_is_by_time(world):
    _, arriving, _ = world
    two = first_of_items(arriving, 2)
    assert two.nnz == 2 * NEW.sum()
    frame = arriving.to_frame().sort_values("time").groupby("item_id").head(2)
    expected = set(zip(frame["user_id"], frame["item_id"], strict=True))
    found = two.to_frame()
    assert set(zip(found["user_id"], found["item_id"], strict=True)) == expected
    untimed = Interactions(arriving.matrix, arriving.users, arriving.items)
    assert first_of_items(untimed, 3, seed=1).nnz == 3 * NEW.sum()


def test_random_is_seeded_and_models_can_be_saved(world, tmp_path):
    train, _, holdout = world
    model = Random(random_state=3).fit(train)
    rows = holdout.history.matrix
    np.testing.assert_array_equal(model.scores(rows), model.scores(rows))
    assert (model.scores(rows) != Random(random_state=4).fit(train).scores(rows)).any()
    knn = ContentKNN().fit(train)
    for number, one in enumerate((model, knn)):
        one.save(tmp_path / str(number))
        again = Recommender.load(tmp_path / str(number))
        np.testing.assert_array_equal(again.scores(again.fold_in(rows)), one.scores(one.fold_in(rows)))


def test_fallbacks_change_the_pruned_items_only_for_better_or_worse(world):
    train, _, holdout = world
    warm = Holdout(holdout.history, holdout.target)
    rng = np.random.default_rng(1)
    asked = rng.random(holdout.history.nnz) < 0.3
    warm = Holdout(holdout.history.select_entries(~asked), holdout.history.select_entries(asked))
    model = IALS(dim=4, epochs=4, recipe={"granularity": "row", "density": 0.5}).fit(train)
    assert 0 < pruned_rows(model.item_table_).sum() < N_ITEMS
    found = evaluate_fallbacks(model, warm, metrics=["ndcg@10"])
    as_is = evaluate(model, warm, ["ndcg@10"])
    np.testing.assert_array_equal(found["zero"][0].values("ndcg@10"), as_is.values("ndcg@10"))
    zero, mean = found["zero"][1], found["mean"][1]
    assert set(zero) == {"kept", "pruned"}
    assert mean["pruned"]["ndcg@10"].mean != zero["pruned"]["ndcg@10"].mean
    by_features = found["features"][1]["pruned"]["ndcg@10"].mean  # the kind says nearly all there is to say
    assert by_features > 1.1 * max(found[name][1]["pruned"]["ndcg@10"].mean for name in ("zero", "mean"))
    # sixteen buckets for some twenty rows are nearly vectors of their own
    assert found["hash"][1]["pruned"]["ndcg@10"].mean > by_features
    dense = IALS(dim=4, epochs=2).fit(Interactions.from_csr(np.ones((9, N_ITEMS))))
    with pytest.raises(DataError, match="No row of the item table was pruned"):
        evaluate_fallbacks(dense, warm)


@pytest.mark.parametrize("model", [IALS(dim=4, epochs=300), FeatureIALS(dim=4, epochs=300, feature_reg=0.1)])
def test_pruned_rows_are_solved_again_as_training_would(world, model):
    """Where training has come to rest, one more half-step changes nothing: pull towards features and all."""
    train, _, _ = world
    model.fit(train)
    values = model.item_table_.to_dense()
    pruned = np.arange(N_ITEMS) % 4 == 0  # every fifth of these is new
    kept = np.where(pruned[:, None], 0, values).astype(np.float32)
    np.testing.assert_allclose(_solved(model, kept, pruned), values, atol=1e-3 * np.abs(values).max())

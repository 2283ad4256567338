from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError
from recsparse.evaluation import evaluate
from recsparse.evaluation.baselines import ContentKNN
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.models import COLD, MF, FeatureMF, Popularity, Recommender
from tests.models.contract import ModelContract
from tests.models.known import N_ITEMS, N_USERS, planted

SETTINGS: dict[str, Any] = {"dim": 8, "epochs": 60, "learning_rate": 0.1, "n_jobs": 1}


class TestWithoutFeatures(ModelContract):
    model = FeatureMF(dim=8, epochs=300, learning_rate=0.1, n_jobs=1)


@pytest.fixture(scope="module")
def fitted() -> FeatureMF:
    return FeatureMF(**SETTINGS).fit(planted()[0])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"loss": "softmax", "n_negatives": 4, "optimiser": "adagrad"},
        {"recipe": {"density": 0.5}},
        {"value_type": "int8"},
        {"layers": 2},
    ],
)
def test_cold_items_are_found_by_their_features(settings: dict[str, Any]) -> None:
    train, holdout = planted()
    cold = np.arange(N_ITEMS) >= 120
    found = {
        model.kind: evaluate(model.fit(train), holdout, ["ndcg@10"], among=cold).summaries["ndcg@10"].mean
        for model in (FeatureMF(**SETTINGS | settings), MF(**SETTINGS | settings), Popularity(), ContentKNN())
    }
    assert found["feature-mf"] > 2 * max(found["mf"], found["popularity"])
    assert found["feature-mf"] > 0.9 * found["content-knn"]  # here an oracle: the kind says all there is to say


def test_weights_are_the_ridge_regression_of_the_rows(fitted: FeatureMF) -> None:
    train, _ = planted()
    X = train.matrix.toarray()
    known = X.sum(axis=0) > 0
    drawn = train.nnz / known.sum()
    for table, design, weights, touched in (
        (fitted.item_table_.to_dense()[known], fitted.item_encoding_.encode(train.items).toarray()[known],
         fitted.item_weights_, X.sum(axis=0)[known] + drawn),
        (fitted.user_table_.to_dense(), fitted.user_encoding_.encode(train.users).toarray(), fitted.user_weights_,
         X.sum(axis=1)),
    ):  # fmt: skip
        F = np.column_stack([np.ones(len(design)), design])
        gradient = F.T @ (touched[:, None] * (F @ weights - table)) + touched.mean() * weights
        np.testing.assert_allclose(gradient, 0, atol=1e-4 * np.abs(F.T @ (touched[:, None] * table)).max())
    np.testing.assert_allclose(
        fitted.item_table_.to_dense()[~known], fitted.predict_items(train.items)[~known], atol=1e-6
    )


def test_without_a_pull_to_features_warm_rows_are_those_of_mf() -> None:
    """A ridge too large for any weight leaves the prior at zero; every item is known, so negatives are the same."""
    train, _ = planted(cold_from=N_ITEMS)
    settings = SETTINGS | {"epochs": 5}
    plain, same = MF(**settings).fit(train), FeatureMF(feature_reg=1e12, **settings).fit(train)
    np.testing.assert_allclose(same.item_table_.to_dense(), plain.item_table_.to_dense(), atol=1e-4)
    np.testing.assert_allclose(same.user_table_.to_dense(), plain.user_table_.to_dense(), atol=1e-4)


def test_a_strong_pull_brings_rows_to_what_features_say() -> None:
    train, _ = planted()

    def rest(reg: float) -> float:
        model = FeatureMF(**SETTINGS | {"reg": reg}).fit(train)
        rows = model.item_table_.to_dense()[:120]
        return float(np.square(rows - model.predict_items(train.items)[:120]).sum() / np.square(rows).sum())

    assert rest(0.1) < 0.5 * rest(0.001)


def test_a_cold_user_is_answered_by_features(fitted: FeatureMF) -> None:
    train, _ = planted()
    empty = sp.csr_array((2, N_ITEMS), dtype=np.float32)
    users = pa.table({"user_id": [999, 1000], "likes": [["kind 2", "opera"], None]})
    new = Interactions(empty, users, train.items)
    assert fitted.unknown(empty, users).tolist() == [False, True]
    for query in (fitted.fold_in(new), fitted.queries(new)):
        np.testing.assert_array_equal(query, fitted.predict_users(users))
    answer = fitted.recommend(histories=new, k=10)
    assert (answer["status"] == COLD).all()
    kinds = np.array(train.items["kind"].to_pylist())
    assert (kinds[answer["item_id"][answer["user_id"] == 999]] == "kind 2").mean() > 0.8
    popular = Popularity().fit(train).recommend(histories=new, k=10)
    assert answer["item_id"][10:].tolist() == popular["item_id"][10:].tolist()


def test_users_with_a_history_are_folded_in_by_it_and_trained_ones_keep_their_rows(fitted: FeatureMF) -> None:
    train, _ = planted()
    np.testing.assert_array_equal(fitted.queries(train), fitted.user_table_.to_dense())
    bare = Interactions(train.matrix, train.users.select(["user_id"]), train.items)
    np.testing.assert_array_equal(fitted.fold_in(train), fitted.fold_in(bare))


def test_a_user_without_training_interactions_has_the_row_that_features_say() -> None:
    train, _ = planted()
    rows = np.repeat(np.arange(N_USERS), np.diff(train.matrix.indptr))
    train = train.select_entries(rows != 7)
    model = FeatureMF(**SETTINGS | {"epochs": 3}).fit(train)
    np.testing.assert_array_equal(model.user_table_.to_dense()[7], model.predict_users(train.users)[7])


def test_saved_with_features(fitted: FeatureMF, tmp_path: Path) -> None:
    train, _ = planted()
    fitted.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert isinstance(loaded, FeatureMF)
    np.testing.assert_array_equal(loaded.predict_items(train.items), fitted.predict_items(train.items))
    np.testing.assert_array_equal(loaded.predict_users(train.users), fitted.predict_users(train.users))
    np.testing.assert_array_equal(loaded.queries(train), fitted.queries(train))


def test_the_best_epoch_keeps_its_own_weights() -> None:
    """With validation the weights are those of the epoch kept, not of the last one."""
    train, _ = planted()
    rng = np.random.default_rng(0)
    asked = rng.random(train.nnz) < 0.2
    holdout = Holdout(train.select_entries(~asked), train.select_entries(asked))
    model = FeatureMF(**SETTINGS | {"patience": 3, "epochs": 200}).fit(holdout.history, validation=holdout)
    assert model.best_epoch_ < model.epochs_
    again = FeatureMF(**SETTINGS | {"epochs": model.best_epoch_}).fit(holdout.history)
    np.testing.assert_array_equal(model.item_weights_, again.item_weights_)
    np.testing.assert_array_equal(model.item_table_.to_dense(), again.item_table_.to_dense())


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    train, _ = planted()
    whole = FeatureMF(**SETTINGS | {"epochs": 4}).fit(train)

    def stop(epoch: int, _: float | None) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    model = FeatureMF(**SETTINGS | {"epochs": 4})
    with pytest.raises(KeyboardInterrupt):
        model.fit(train, checkpoint=tmp_path / "state", on_epoch=stop)
    model.fit(train, checkpoint=tmp_path / "state")
    np.testing.assert_array_equal(model.item_table_.to_dense(), whole.item_table_.to_dense())
    np.testing.assert_array_equal(model.item_weights_, whole.item_weights_)
    items = train.items.set_column(1, "kind", [train.items["kind"].to_pylist()[::-1]])
    with pytest.raises(ConfigError, match="other settings or other data"):
        model.fit(Interactions(train.matrix, train.users, items), checkpoint=tmp_path / "state")


@pytest.mark.parametrize("value_type", ["fp32", "int8", "int2"])
def test_a_resumed_training_keeps_its_best_epoch_as_it_was(value_type: str, tmp_path: Path) -> None:
    """Killed after the best epoch: what features say comes from rows that were not rounded yet."""
    train, _ = planted()
    asked = np.random.default_rng(0).random(train.nnz) < 0.2
    holdout = Holdout(train.select_entries(~asked), train.select_entries(asked))
    settings = SETTINGS | {"patience": 3, "epochs": 200, "value_type": value_type}
    whole = FeatureMF(**settings).fit(holdout.history, validation=holdout)

    def stop(epoch: int, _: float | None) -> None:
        if epoch == whole.best_epoch_ + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FeatureMF(**settings).fit(holdout.history, validation=holdout, checkpoint=tmp_path / "state", on_epoch=stop)
    resumed = FeatureMF(**settings).fit(holdout.history, validation=holdout, checkpoint=tmp_path / "state")
    assert (resumed.epochs_, resumed.best_epoch_) == (whole.epochs_, whole.best_epoch_)
    for name, model in (("whole", whole), ("resumed", resumed)):
        model.save(tmp_path / name)
    for path in sorted((tmp_path / "whole").glob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "resumed" / path.name).read_bytes(), path.name


def test_cold_items_keep_their_share_of_a_pruned_table() -> None:
    values = FeatureMF(**SETTINGS | {"recipe": {"density": 0.25}}).fit(planted()[0]).item_table_.to_dense()
    assert np.count_nonzero(values) <= round(0.25 * values.size)
    assert np.count_nonzero(values[120:]) > 0


def test_a_ridge_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"feature_reg is 0\.0"):
        FeatureMF(dim=4, feature_reg=0.0).fit(planted()[0])

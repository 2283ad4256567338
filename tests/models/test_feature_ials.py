from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError, FormatError
from recsparse.evaluation import evaluate
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.models import FeatureIALS, Popularity, Recommender
from recsparse.models.least_squares import ImplicitLoss
from tests.models.contract import ModelContract
from tests.models.known import N_ITEMS, N_USERS, planted


class TestWithoutFeatures(ModelContract):
    model = FeatureIALS(dim=4, epochs=10)


class TestByDegree(ModelContract):
    model = FeatureIALS(dim=4, epochs=10, degree_power=0.25)


class TestWithoutFeaturesConjugateGradients(ModelContract):
    model = FeatureIALS(dim=4, epochs=10, solver="cg")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"solver": "cg"},
        {"solver": "block", "block": 3},
        {"recipe": {"density": 0.5}, "epochs": 20},
        {"value_type": "int8"},
    ],
)
def test_cold_items_are_found_by_their_features(settings: dict[str, Any]) -> None:
    train, holdout = planted()
    rows = np.flatnonzero(np.diff(holdout.target.matrix.indptr) > 0)
    holdout = Holdout(holdout.history.select_users(rows), holdout.target.select_users(rows))
    cold = np.arange(N_ITEMS) >= 120
    found = {}
    for name, model in (
        ("features", FeatureIALS(**{"dim": 8, **settings})),
        ("popularity", Popularity()),
    ):
        found[name] = evaluate(model.fit(train), holdout, ["ndcg@10"], among=cold).summaries["ndcg@10"].mean
    assert found["features"] > 2.2 * found["popularity"]


def test_the_gradient_is_zero_for_items_users_and_weights() -> None:
    train, _ = planted()
    model = FeatureIALS(dim=4, epochs=600, alpha0=0.2, reg=0.05, nu=0.8, feature_reg=2.0).fit(train)
    X = train.matrix.toarray().astype(np.float64)
    known = X.sum(axis=0) > 0
    F = np.column_stack([np.ones(N_ITEMS), model.item_encoding_.encode(train.items).toarray()])
    G = np.column_stack([np.ones(N_USERS), model.user_encoding_.encode(train.users).toarray()])
    V, W, Z = (
        each.astype(np.float64) for each in (model.item_table_.to_dense(), model.item_weights_, model.user_weights_)
    )
    U = model.queries(train).astype(np.float64)
    ridge = {
        "items": 0.05 * (X.sum(axis=0) + 0.2 * N_USERS) ** 0.8,
        "users": 0.05 * (X.sum(axis=1) + 0.2 * N_ITEMS) ** 0.8,
    }
    V_known, X_known = V[known], X[:, known]
    error = X_known * (U @ V_known.T - 1) + 0.2 * (U @ V_known.T)
    by_user = error @ V_known + ridge["users"][:, None] * (U - G @ Z)
    by_item = error.T @ U + ridge["items"][known, None] * (V - F @ W)[known]
    weights = ridge["items"][known]
    by_weight = -F[known].T @ (weights[:, None] * (V - F @ W)[known]) + 2.0 * weights.mean() * W
    scale = np.abs(X_known.T @ U).max()
    assert np.abs(by_user).max() < 1e-3 * scale
    assert np.abs(by_item).max() < 1e-2 * scale
    assert np.abs(by_weight).max() < 1e-2 * scale
    np.testing.assert_allclose(V[~known], (F @ W)[~known], atol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.25])
def test_without_features_to_speak_of_it_is_ials_with_a_mean(power: float) -> None:
    """A ridge too large for any weight leaves the prior at zero: plain iALS."""
    from recsparse.models import IALS

    train, _ = planted(cold_from=N_ITEMS)
    plain = IALS(dim=4, epochs=5, degree_power=power).fit(train)
    same = FeatureIALS(dim=4, epochs=5, degree_power=power, feature_reg=1e9).fit(train)
    np.testing.assert_allclose(same.item_table_.to_dense(), plain.item_table_.to_dense(), atol=1e-4)
    np.testing.assert_allclose(same.fold_in(train.matrix[:9]), plain.fold_in(train.matrix[:9]), atol=1e-4)


def whole_loss(model: FeatureIALS, train: Interactions) -> float:
    X, U, V = train.matrix.toarray(), model.queries(train).astype(np.float64), model.item_table_.to_dense()
    known = X.sum(axis=0) > 0
    loss = ImplicitLoss(model.alpha0, model.reg, model.nu)
    S = (U @ V.T)[:, known]
    users = np.square(U - model.predict_users(train.users)).sum(axis=1)
    items = np.square(V - model.predict_items(train.items)).sum(axis=1)[known]
    fit = (X[:, known] * (S - 1) ** 2).sum() + model.alpha0 * (S**2).sum()
    return float(fit + loss.ridge(train.matrix) @ users + loss.ridge(sp.csr_array(train.matrix.T))[known] @ items)


@pytest.mark.parametrize("solver", ["cg", "block"])
def test_other_solvers_reach_the_same_loss(solver: Any) -> None:
    train, _ = planted()
    losses = [
        whole_loss(FeatureIALS(dim=4, epochs=100, solver=each, block=2).fit(train), train)
        for each in ("cholesky", solver)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.005)


def test_a_cold_user_is_represented_by_features() -> None:
    train, _ = planted()
    model = FeatureIALS(dim=8).fit(train)
    empty = sp.csr_array((1, N_ITEMS), dtype=np.float32)
    new = Interactions(empty, pa.table({"user_id": [999], "likes": [["kind 2", "opera"]]}), train.items)
    for query in (model.fold_in(new), model.queries(new)):
        np.testing.assert_array_equal(query, model.predict_users(new.users))
        best = np.argsort(-model.scores(query)[0])[:10]
        assert (np.array(train.items["kind"].to_pylist())[best] == "kind 2").mean() > 0.8
    unknown = Interactions(empty, pa.table({"user_id": [999]}), train.items)
    np.testing.assert_array_equal(model.fold_in(unknown)[0], model.user_weights_[0])


def test_training_users_are_known_by_the_features_of_training() -> None:
    train, _ = planted()
    model = FeatureIALS(dim=8).fit(train)
    bare = Interactions(train.matrix, train.users.select(["user_id"]), train.items)
    np.testing.assert_array_equal(model.queries(bare), model.queries(train))
    assert np.abs(model.fold_in(bare) - model.fold_in(train)).max() > 1e-3


def test_items_outside_the_catalogue_can_be_embedded() -> None:
    train, _ = planted()
    model = FeatureIALS(dim=8).fit(train)
    predicted = model.predict_items(train.items)
    cold = np.arange(N_ITEMS) >= 120
    np.testing.assert_allclose(model.item_table_.to_dense()[cold], predicted[cold], atol=1e-6)
    new = model.predict_items(pa.table({"item_id": [-1], "kind": [train.items["kind"][0].as_py()]}))
    np.testing.assert_allclose(new[0], predicted[0], atol=1e-6)


def test_saved_with_features(tmp_path: Path) -> None:
    train, _ = planted()
    model = FeatureIALS(dim=8, recipe={"density": 0.5}).fit(train)
    model.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert isinstance(loaded, FeatureIALS)
    np.testing.assert_array_equal(loaded.fold_in(train), model.fold_in(train))
    np.testing.assert_array_equal(loaded.predict_items(train.items), model.predict_items(train.items))
    (tmp_path / "model" / "item_features.json").write_text("{}")
    with pytest.raises(FormatError, match="features are damaged"):
        Recommender.load(tmp_path / "model")


def test_cold_items_keep_their_share_of_a_pruned_table() -> None:
    train, _ = planted()
    values = FeatureIALS(dim=8, recipe={"density": 0.25}).fit(train).item_table_.to_dense()
    assert np.count_nonzero(values) <= round(0.25 * values.size)
    assert np.count_nonzero(values[120:]) > 0


def test_a_ridge_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"feature_reg is 0\.0"):
        FeatureIALS(dim=4, feature_reg=0.0).fit(planted()[0])


def test_half_steps_with_a_prior_minimise_the_same_loss() -> None:
    rng = np.random.default_rng(0)
    X = sp.csr_array(sp.random_array((30, 40), density=0.2, rng=rng), dtype=np.float32)
    X.data[:] = rng.choice([1.0, 2.5], X.nnz)
    F, prior = (rng.standard_normal((rows, 6)).astype(np.float32) for rows in (40, 30))
    loss = ImplicitLoss(alpha0=0.2, reg=0.5, nu=0.8)
    exact = loss.solve(X, F, prior=prior)
    ridge = 0.5 * (X.sum(axis=1) + 0.2 * 40) ** 0.8
    dense = X.toarray().astype(np.float64)
    gradient = (dense * (exact @ F.T - 1) + 0.2 * exact @ F.T) @ F + ridge[:, None] * (exact - prior)
    assert np.abs(gradient).max() < 1e-3
    np.testing.assert_allclose(loss.gradient(X, F, exact, prior=prior), 0, atol=1e-3)
    np.testing.assert_allclose(loss.solve(X, sp.csr_array(F), prior=prior), exact, atol=1e-4)
    np.testing.assert_allclose(loss.solve_blocks(X, F, prior, 6, prior=prior), exact, atol=1e-4)
    rotated, rows = loss.refine(X, F, prior, 60, prior=prior)
    np.testing.assert_allclose(rows @ rotated.T, exact @ F.T, atol=1e-3)
    full = sp.csr_array(np.ones((30, 6), dtype=np.float32))
    np.testing.assert_allclose(loss.solve_on_support(X, F, full, prior=prior)[0].toarray(), exact, atol=1e-4)


def test_a_checkpoint_belongs_to_its_features(tmp_path: Path) -> None:
    train, _ = planted()
    model = FeatureIALS(dim=4, epochs=2)
    model.fit(train, checkpoint=tmp_path / "state")
    items = train.items.set_column(1, "kind", [train.items["kind"].to_pylist()[::-1]])
    with pytest.raises(ConfigError, match="other settings or other data"):
        model.fit(Interactions(train.matrix, train.users, items), checkpoint=tmp_path / "state")

import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError, DivergenceError
from recsparse.models import BiasedMF
from tests.models.contract import ModelContract


class TestBiasedMF(ModelContract):
    model = BiasedMF(dim=4)
    personalised = False  # every value of the checkerboard is 1: there is nothing to tell ratings apart


def ratings(rng: np.random.Generator, n_users: int = 300, n_items: int = 100) -> np.ndarray:
    """Ratings of rank 2 with biases, and a little noise."""
    p, q = 0.5 * rng.standard_normal((n_users, 2)), 0.5 * rng.standard_normal((n_items, 2))
    b_u, b_i = 0.5 * rng.standard_normal((n_users, 1)), 0.7 * rng.standard_normal((1, n_items))
    return 3.5 + b_u + b_i + p @ q.T + 0.05 * rng.standard_normal((n_users, n_items))


def test_planted_ratings_are_recovered() -> None:
    rng = np.random.default_rng(0)
    full = ratings(rng)
    known = rng.random(full.shape) < 0.4
    model = BiasedMF(dim=2, reg=0.001, epochs=30).fit(sp.csr_array(np.where(known, full, 0).astype(np.float32)))
    users, items = np.nonzero(~known)
    error = model.score_pairs(users, items) - full[users, items]
    assert np.sqrt(np.mean(error**2)) < 0.1
    assert abs(model.mean_ - full[known].mean()) < 1e-5


def test_the_half_step_is_at_its_optimum() -> None:
    rng = np.random.default_rng(1)
    X = sp.csr_array(np.where(rng.random((50, 30)) < 0.3, ratings(rng, 50, 30), 0).astype(np.float32))
    model = BiasedMF(dim=3, reg=0.1).fit(X)
    table = model.item_table_.to_dense().astype(np.float64)
    Q, b_i = table[:, :3], table[:, 3]
    queries = model.fold_in(X).astype(np.float64)
    for user in range(50):
        own = X[[user]]
        items, values = own.indices, own.data
        p, b_u = queries[user, :3], queries[user, -1] - model.mean_
        miss = values - model.mean_ - b_u - b_i[items] - Q[items] @ p
        np.testing.assert_allclose(Q[items].T @ miss, 0.1 * len(items) * p, atol=1e-3)
        np.testing.assert_allclose(miss.sum(), 0.1 * len(items) * b_u, atol=1e-3)


def test_a_user_without_ratings_gets_mean_and_item_bias() -> None:
    rng = np.random.default_rng(2)
    model = BiasedMF(dim=2).fit(sp.csr_array(ratings(rng, 40, 20).astype(np.float32)))
    scores = model.scores(model.fold_in(sp.csr_array((1, 20), dtype=np.float32)))
    np.testing.assert_allclose(scores[0], model.mean_ + model.item_table_.to_dense()[:, 2], rtol=1e-5)


def test_an_unknown_value_type_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BiasedMF, "_solve", None)
    with pytest.raises(ConfigError, match="The value type is 'float16'"):
        BiasedMF(value_type="float16").fit(sp.csr_array(np.eye(3)))


def test_threads_do_not_change_the_bytes() -> None:
    X = sp.csr_array(ratings(np.random.default_rng(3)).astype(np.float32))
    one, two = (BiasedMF(dim=4, epochs=2, n_jobs=n).fit(X).item_table_.to_dense() for n in (1, 2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_names_the_epoch_and_keeps_the_last_good_state() -> None:
    X = sp.csr_array(ratings(np.random.default_rng(4), 40, 20).astype(np.float32))
    X.data[::3] = 1e30
    model = BiasedMF(dim=4)
    with pytest.raises(
        DivergenceError, match=r"diverged in epoch \d+ \(reg 0.05, ratings .* to 1e\+30\); the model keeps"
    ):
        model.fit(X)
    assert np.isfinite(model.item_table_.to_dense()).all()


@pytest.mark.parametrize("setting", [{"dim": 0}, {"epochs": 0}, {"reg": 0.0}])
def test_impossible_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(setting))} is"):
        BiasedMF(**setting).fit(sp.csr_array(np.eye(3)))  # type: ignore[arg-type]

import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError
from recsparse.models import EASE
from tests.models.contract import ModelContract


class TestEASE(ModelContract):
    model = EASE(reg=2.0)


def random_matrix(n_users: int = 300, n_items: int = 150) -> sp.csr_array:
    return sp.csr_array(
        sp.random_array((n_users, n_items), density=0.1, rng=np.random.default_rng(0)), dtype=np.float32
    )


@pytest.mark.parametrize("n_items", [1, 63, 64, 65, 150])
def test_weights_solve_the_constrained_ridge(n_items: int) -> None:
    # For each target column the gradient of the free weights is zero: X'(X b - x) + reg b = 0 off the diagonal.
    reg = 3.0
    X = random_matrix(n_items=n_items)
    B = EASE(reg=reg).fit(X).item_weights_.astype(np.float64)
    dense = X.toarray().astype(np.float64)
    gradient = dense.T @ (dense @ B - dense) + reg * B
    np.fill_diagonal(gradient, 0)
    assert np.abs(gradient).max() < 1e-3
    assert (B.diagonal() == 0).all()


def test_values_count() -> None:
    X = random_matrix()
    scaled = EASE(reg=4.0).fit(X * np.float32(2))
    np.testing.assert_allclose(scaled.item_weights_, EASE(reg=1.0).fit(X).item_weights_, atol=1e-5)


def test_threads_do_not_change_the_bytes() -> None:
    X = random_matrix()
    np.testing.assert_array_equal(EASE(n_jobs=1).fit(X).item_weights_, EASE(n_jobs=3).fit(X).item_weights_)


@pytest.mark.parametrize("reg", [0.0, -1.0, float("nan")])
def test_regularisation_must_be_positive(reg: float) -> None:
    with pytest.raises(ConfigError, match="reg is"):
        EASE(reg=reg).fit(random_matrix())


def test_singular_in_float32_is_said() -> None:
    X = sp.csr_array(np.full((2, 3), 1e4, dtype=np.float32))
    with pytest.raises(DataError, match="raise reg"):
        EASE(reg=1e-6).fit(X)

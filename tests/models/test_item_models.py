"""SLIM, item-kNN and the sparse approximation of EASE."""

import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError
from recsparse.models import EASE, SLIM, ItemKNN, SparseEASE
from tests.models.contract import ModelContract


class TestSLIM(ModelContract):
    model = SLIM(l1=0.1, l2=1.0)


class TestItemKNN(ModelContract):
    model = ItemKNN(k=19)


class TestItemKNNWithBM25(ModelContract):
    model = ItemKNN(k=19, weighting="bm25")


class TestItemKNNWithTfIdf(ModelContract):
    model = ItemKNN(k=19, weighting="tf-idf")


class TestSparseEASE(ModelContract):
    model = SparseEASE(reg=2.0, neighbours=19)


def random_matrix(n_users: int = 300, n_items: int = 80) -> sp.csr_array:
    matrix = sp.random_array((n_users, n_items), density=0.15, rng=np.random.default_rng(0))
    return sp.csr_array(matrix, dtype=np.float32)


@pytest.mark.parametrize("positive", [True, False])
def test_slim_meets_the_optimality_condition(positive: bool) -> None:
    # For weight b of a target x: g = X'(x - Xb) - l2 b must be l1 where b > 0, -l1 where b < 0, within ±l1 (below l1
    # with the positivity constraint) where b = 0.
    l1, l2 = 0.3, 1.0
    X = random_matrix()
    B = SLIM(l1=l1, l2=l2, positive=positive, tolerance=1e-7).fit(X).item_weights_.toarray().astype(np.float64)
    dense = X.toarray().astype(np.float64)
    g = dense.T @ (dense - dense @ B) - l2 * B
    off = ~np.eye(len(B), dtype=bool)
    assert (B.diagonal() == 0).all()
    assert np.abs(g[(B > 0) & off] - l1).max() < 1e-3
    assert g[(B == 0) & off].max() < l1 + 1e-3
    if positive:
        assert B.min() == 0
    else:
        assert np.abs(g[(B < 0) & off] + l1).max() < 1e-3
        assert g[(B == 0) & off].min() > -l1 - 1e-3
    assert 0.02 < (B != 0).mean() < 0.9


def test_slim_without_l1_and_sign_is_ease() -> None:
    X = random_matrix()
    slim = SLIM(l1=0.0, l2=5.0, positive=False, tolerance=1e-7, rounds=5000).fit(X)
    np.testing.assert_allclose(slim.item_weights_.toarray(), EASE(reg=5.0).fit(X).item_weights_, atol=1e-4)


def test_sparse_ease_with_all_neighbours_is_ease() -> None:
    X = sp.csr_array((np.random.default_rng(1).random((300, 80)) < 0.3).astype(np.float32))
    assert (X.T @ X).nnz == 80 * 80
    sparse = SparseEASE(reg=5.0, neighbours=80).fit(X)
    np.testing.assert_allclose(sparse.item_weights_.toarray(), EASE(reg=5.0).fit(X).item_weights_, atol=1e-4)


def test_sparse_ease_is_exact_on_its_support() -> None:
    X = random_matrix()
    reg = 5.0
    B = SparseEASE(reg=reg, neighbours=7).fit(X).item_weights_.toarray().astype(np.float64)
    assert (np.count_nonzero(B, axis=0) <= 7).all()
    dense = X.toarray().astype(np.float64)
    gradient = dense.T @ (dense @ B - dense) + reg * B
    assert np.abs(gradient[B != 0]).max() < 1e-4


@pytest.mark.parametrize(
    "model", [SLIM(l1=0.3, l2=1.0), SparseEASE(reg=5.0, neighbours=7)], ids=["slim", "sparse-ease"]
)
def test_threads_do_not_change_the_bytes(model: SLIM | SparseEASE) -> None:
    X = random_matrix()
    one = model.set_params(n_jobs=1).fit(X).item_weights_.toarray()
    np.testing.assert_array_equal(one, model.set_params(n_jobs=3).fit(X).item_weights_.toarray())


def test_item_knn_by_hand() -> None:
    X = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 0], [0, 0, 1]], dtype=np.float32)
    cosine = ItemKNN(k=1).fit(sp.csr_array(X)).item_weights_.toarray()
    # cos(0, 1) = 2 / sqrt(3 · 2), cos(0, 2) = 1 / sqrt(3 · 2), cos(1, 2) = 0; each column keeps its best
    best = 2 / np.sqrt(6)
    np.testing.assert_allclose(cosine, [[0, best, 1 / np.sqrt(6)], [best, 0, 0], [0, 0, 0]], rtol=1e-6)
    shrunk = ItemKNN(k=1, shrink=1.0).fit(sp.csr_array(X)).item_weights_.toarray()
    np.testing.assert_allclose(shrunk[0, 1], 2 / (np.sqrt(6) + 1), rtol=1e-6)


def test_bm25_by_hand() -> None:
    X = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 0], [0, 0, 1]], dtype=np.float32)
    k1, b = 1.2, 0.75
    length, m = X.sum(axis=0), X.sum(axis=1)
    idf = np.log(1 + (3 - m + 0.5) / (m + 0.5))
    w = idf[:, None] * X * (k1 + 1) / (X + k1 * (1 - b + b * length / length.mean()))
    expected = w[:, 0] @ w[:, 1]
    got = ItemKNN(k=1, weighting="bm25").fit(sp.csr_array(X)).item_weights_.toarray()
    np.testing.assert_allclose(got[0, 1], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (SLIM(l1=-1.0), "l1 is"), (SLIM(l2=float("nan")), "l2 is"), (ItemKNN(k=0), "k is"),
        (ItemKNN(weighting="euclid"), "weighting is"), (ItemKNN(shrink=-1.0), "shrink is"),  # type: ignore[arg-type]
        (SparseEASE(reg=0.0), "reg is"), (SparseEASE(neighbours=0), "neighbours is"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(model: SLIM, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        model.fit(random_matrix())

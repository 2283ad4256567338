import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.evaluation.interpretability import interpret

GENRES = ["War", "Comedy", "Drama"]


def planted(noise, seed=0, n_items=300):
    """Dimension d's positive pole is genre d, as far as noise leaves it."""
    rng = np.random.default_rng(seed)
    genre = rng.integers(0, 3, n_items)
    features = sp.csr_array(np.eye(3, dtype=np.float32)[genre])
    vectors = noise * rng.standard_normal((n_items, 3)).astype(np.float32) + np.eye(3, dtype=np.float32)[genre]
    return vectors, features


def test_planted_meaning_is_found():
    found = interpret(*planted(noise=0.1), GENRES, top=20)
    positive = {pole.dim: pole for pole in found.poles if pole.sign == 1}
    assert {dim: pole.feature for dim, pole in positive.items()} == dict(enumerate(GENRES))
    assert all(pole.purity == pytest.approx(1.0) for pole in positive.values())
    assert found.p < 0.01
    assert found.control < 0.5 < found.purity


def test_meaningless_dimensions_are_no_purer_than_the_control():
    p = []
    for seed in range(20):
        vectors, features = planted(noise=0.0, seed=seed)
        noise = np.random.default_rng(seed + 100).standard_normal(vectors.shape).astype(np.float32)
        p.append(interpret(noise, features, GENRES, shuffles=99).p)
    assert 0.2 < np.mean(p) < 0.8
    assert min(p) >= 1 / 100


def test_purity_by_hand():
    vectors = np.array([[3], [2], [1], [0]], dtype=np.float32)
    features = sp.csr_array([[1, 0], [1, 1], [0, 1], [0, 1]], dtype=np.float32)
    found = interpret(vectors, features, ["a", "b"], top=2, shuffles=0)
    [pole] = found.poles  # the negative end is empty; a: (1 - .5) / .5 = 1, b: (.5 - .75) / .25 = -1
    assert (pole.dim, pole.sign, pole.feature, pole.purity, pole.items.tolist()) == (0, 1, "a", 1.0, [0, 1])


def test_nothing_to_name_or_name_by_is_refused():
    vectors, features = planted(noise=0.1)
    with pytest.raises(DataError, match="no categorical features"):
        interpret(vectors, features[:, :0], [])
    with pytest.raises(DataError, match="No dimension has 400"):
        interpret(vectors, features, GENRES, top=400)

import math

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from recsparse.errors import DataError
from recsparse.evaluation import beyond
from recsparse.evaluation.features import feature_matrix

LISTS = np.array([[0, 1], [0, 2], [0, -1]], dtype=np.int32)  # x = 3 1 1 0


def test_catalogue_figures_by_hand():
    assert beyond.coverage(LISTS, 4) == 3 / 4
    # ascending 0 1 1 3, weights -3 -1 1 3: (0 - 1 + 1 + 9) / (4 * 5)
    assert beyond.gini(LISTS, 4) == pytest.approx(9 / 20)
    shares = [3 / 5, 1 / 5, 1 / 5]
    assert beyond.exposure_entropy(LISTS, 4) == pytest.approx(-sum(p * math.log(p) for p in shares) / math.log(4))


def test_gini_is_the_mean_difference():
    """Independent: half the mean absolute difference of all pairs over the mean."""
    lists = np.random.default_rng(0).integers(0, 30, (50, 5)).astype(np.int32)
    x = beyond.exposure(lists, 40).astype(float)
    expected = np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean())
    assert beyond.gini(lists, 40) == pytest.approx(expected)


def test_novelty_and_lift_by_hand():
    popularity = np.array([7.0, 3.0, 0.0, 1.0])
    novelty = beyond.novelty(LISTS, popularity, n_users=7)
    assert novelty == pytest.approx([(-math.log2(8 / 8) - math.log2(4 / 8)) / 2, (0 + 3) / 2, 0.0])
    history = sp.csr_array([[0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    lift = beyond.popularity_lift(LISTS, popularity, history)
    assert lift[:2] == pytest.approx([5 / 2 - 1, 3.5 / 7 - 1])
    assert np.isnan(lift[2])


def test_counts_of_little_precision_are_summed_in_double():
    popularity = np.array([2.0**24, 1.0, 1.0, 5.0], dtype=np.float32)
    lists = np.array([[0, 1, 2]], dtype=np.int32)
    history = sp.csr_array([[0, 0, 0, 1]])
    assert beyond.popularity_lift(lists, popularity, history)[0] == (2**24 + 2) / 3 / 5 - 1
    expected = -sum(math.log2((count + 1) / 8) for count in (2**24, 1, 1)) / 3
    assert beyond.novelty(lists, popularity, n_users=7)[0] == pytest.approx(expected, rel=1e-14)


def test_calibration_by_hand():
    features = sp.csr_array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=np.float32)
    history = sp.csr_array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # p = (.75, .25), (0, 1), nothing
    lists = np.array([[1, 2], [2, -1], [0, 1]], dtype=np.int32)  # q = (.25, .75), (0, 1)
    found = beyond.calibration_error(lists, features, history, alpha=0.01)
    p, q = (0.75, 0.25), (0.25, 0.75)
    expected = sum(a * math.log(a / (0.99 * b + 0.01 * a)) for a, b in zip(p, q, strict=True))
    assert found[:2] == pytest.approx([expected, 0.0])
    assert np.isnan(found[2])


@pytest.mark.parametrize("as_sparse", [False, True])
def test_intra_list_distance_is_the_mean_over_pairs(as_sparse):
    rng = np.random.default_rng(1)
    vectors = (rng.random((20, 6)) * (rng.random((20, 6)) < 0.5)).astype(np.float32)
    vectors[3] = 0
    lists = np.array([rng.choice(20, 5, replace=False) for _ in range(8)] + [[3, 1, -1, -1, -1]], dtype=np.int32)
    lists[0, 0] = 3
    found = beyond.intra_list_distance(lists, sp.csr_array(vectors) if as_sparse else vectors)
    for one, distance in zip(lists, found, strict=True):
        there = [
            vectors[i].astype(float) / np.linalg.norm(vectors[i].astype(float))
            for i in one
            if i >= 0 and vectors[i].any()
        ]
        if len(there) < 2:
            assert np.isnan(distance)
            continue
        pairs = [1 - a @ b for at, a in enumerate(there) for b in there[at + 1 :]]
        assert distance == pytest.approx(np.mean(pairs), abs=1e-6)


def test_agreement_by_hand():
    a = np.array([[0, 1, 2], [0, 1, 2], [0, 1, -1]], dtype=np.int32)
    b = np.array([[0, 2, 5], [7, 8, 9], [1, -1, -1]], dtype=np.int32)
    assert beyond.overlap(a, b) == pytest.approx([2 / 3, 0, 1 / 3])
    p = 0.9  # overlaps at depth 1 2 3: 1 1 2
    expected = 2 / 3 * p**3 + (1 - p) / p * (1 * p + 1 / 2 * p**2 + 2 / 3 * p**3)
    assert beyond.rank_biased_overlap(a, b, p=p)[0] == pytest.approx(expected)
    with pytest.raises(DataError, match="shapes"):
        beyond.overlap(a, b[:, :2])
    with pytest.raises(DataError, match="p is 1"):
        beyond.rank_biased_overlap(a, b, p=1.0)


@given(hnp.arrays(np.int32, (3, 6), elements=st.integers(0, 99), unique=True), st.permutations(range(6)))
def test_rbo_is_one_for_the_same_list_and_less_for_another_order(lists, order):
    same = beyond.rank_biased_overlap(lists, lists)
    np.testing.assert_allclose(same, 1.0)
    other = beyond.rank_biased_overlap(lists, lists[:, list(order)])
    assert (other <= 1.0 + 1e-12).all()
    assert (other == pytest.approx(1.0)) == (list(order) == sorted(order))


def test_features_are_categories_only():
    items = pa.table(
        {
            "item_id": ["a", "b", "c", "d", "e"],
            "title": ["A", "B", "C", "D", "E"],
            "year": [1990, 1991, None, 1990, 1990],
            "kind": ["film", "film", None, "series", "film"],
            "genres": pa.array([["War"], ["War", "Comedy", "War"], None, [], [None, "Comedy"]], pa.list_(pa.string())),
        }
    )
    matrix, names = feature_matrix(items)
    assert names == ["kind=film", "kind=series", "genres=Comedy", "genres=War"]
    assert matrix.toarray().tolist() == [[1, 0, 0, 1], [1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0]]
    assert feature_matrix(items.select(["item_id", "year"]))[0].shape == (5, 0)

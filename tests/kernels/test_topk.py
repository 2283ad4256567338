import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsparse.errors import DataError
from recsparse.kernels.products import TILE_ITEMS, top_products
from recsparse.kernels.topk import NO_ITEM, Selection, top_k

SPECIAL = [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3.4e38]


def full_sort(scores, k, excluded):
    """The definition: every score in order, excluded items, -inf and NaN left out, ties to the lower item row."""
    items = np.full((len(scores), k), NO_ITEM, dtype=np.int32)
    values = np.full((len(scores), k), -np.inf, dtype=np.float32)
    for row, line in enumerate(scores):
        left = [i for i in range(len(line)) if not excluded[row, i] and line[i] > -np.inf]
        best = sorted(left, key=lambda i: (-line[i], i))[:k]
        items[row, : len(best)] = best
        values[row, : len(best)] = line[best]
    return items, values


def pattern(excluded):
    indptr = np.concatenate([[0], np.cumsum(excluded.sum(axis=1))])
    return indptr, np.nonzero(excluded)[1].astype(np.int32)


def scores_of(rng, kind, shape):
    if kind == "distinct":
        return rng.standard_normal(shape).astype(np.float32)
    if kind == "ties":
        return rng.integers(-2, 3, shape).astype(np.float32)
    if kind == "ascending":  # every score beats all before it: the buffer fills again and again
        return np.broadcast_to(np.arange(shape[1], dtype=np.float32) - shape[1] / 2, shape).copy()
    return rng.choice(np.array(SPECIAL, dtype=np.float32), shape)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["distinct", "ties", "ascending", "special"]),
    n_items=st.integers(1, 700),
    k=st.sampled_from([1, 2, 10, 63, 64, 65, 150, 400]),
    share=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_it_is_the_head_of_a_full_sort(seed, kind, n_items, k, share):
    rng = np.random.default_rng(seed)
    scores = scores_of(rng, kind, (3, n_items))
    excluded = rng.random(scores.shape) < share
    before = scores.copy()

    items, values = top_k(scores, k, *pattern(excluded))

    expected_items, expected_values = full_sort(scores, k, excluded)
    np.testing.assert_array_equal(items, expected_items)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(scores, before)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["distinct", "ties", "special"]),
    widths=st.lists(st.integers(1, 300), min_size=1, max_size=6),
    k=st.integers(1, 40),
)
def test_tiles_give_what_the_whole_gives(seed, kind, widths, k):
    rng = np.random.default_rng(seed)
    scores = scores_of(rng, kind, (4, sum(widths)))
    excluded = rng.random(scores.shape) < 0.1
    selection = Selection.start(k, *pattern(excluded))
    first = 0
    for width in widths:
        tile = scores[:, first : first + width].copy()
        selection.push(tile[:3], first, slice(0, 3))
        selection.push(tile[3:], first, slice(3, 4))
        first += width

    for got, expected in zip(selection.finish(), top_k(scores, k, *pattern(excluded)), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("kind", ["distinct", "ties", "ascending"])
@pytest.mark.parametrize("k", [1023, 1025, 3000])
def test_so_many_that_they_are_sorted(kind, k):
    scores = scores_of(np.random.default_rng(3), kind, (2, 10_000))
    excluded = np.random.default_rng(4).random(scores.shape) < 0.1
    items, values = top_k(scores, k, *pattern(excluded))
    expected_items, expected_values = full_sort(scores, k, excluded)
    np.testing.assert_array_equal(items, expected_items)
    np.testing.assert_array_equal(values, expected_values)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_what_is_left_out_may_be_unsorted_repeated_or_unknown(dtype):
    scores = np.arange(8, dtype=np.float32)[None].repeat(3, axis=0)
    indptr = np.array([2, 8, 8, 10], dtype=dtype)
    indices = np.array([0, 0, 7, -1, 5, 7, 99, 6, 0, -8], dtype=dtype)
    items, _ = top_k(scores, 3, indptr, indices)
    assert items.tolist() == [[4, 3, 2], [7, 6, 5], [7, 6, 5]]
    vectors = np.arange(8, dtype=np.float32)[:, None]
    items, _ = top_products(np.ones((3, 1), np.float32), lambda a, b: vectors[a:b], 8, 3, indptr, indices)
    assert items.tolist() == [[4, 3, 2], [7, 6, 5], [7, 6, 5]]


@pytest.mark.parametrize("indptr", [[0, 10**9], [-1, 1], [1, 0], [0], [0, 0, 0], []])
def test_a_pattern_that_does_not_bound_the_rows_is_refused(indptr):
    starts, indices = np.array(indptr, dtype=np.int64), np.array([0], dtype=np.int32)
    with pytest.raises(DataError, match="pattern of what to leave out"):
        top_k(np.ones((1, 3), np.float32), 1, starts, indices)
    with pytest.raises(DataError, match="pattern of what to leave out"):
        top_products(np.ones((1, 3), np.float32), lambda a, b: np.eye(3, dtype=np.float32)[a:b], 3, 1, starts, indices)


def test_zero_and_minus_zero_tie():
    items, _ = top_k(np.array([[-0.0, 0.0, -0.0]], dtype=np.float32), 3, np.zeros(2, np.int64), np.zeros(0, np.int32))
    assert items.tolist() == [[0, 1, 2]]


def test_int64_patterns_and_strided_or_frozen_scores_are_fine():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((200, 5)).astype(np.float32).T
    scores.flags.writeable = False
    excluded = rng.random(scores.shape) < 0.3
    indptr, indices = pattern(excluded)
    items, _ = top_k(scores, 7, indptr.astype(np.int64), indices.astype(np.int64))
    np.testing.assert_array_equal(items, full_sort(scores, 7, excluded)[0])


@pytest.mark.parametrize("n_items", [1, 2, 63, TILE_ITEMS, TILE_ITEMS + 1, 2 * TILE_ITEMS + 77])
@pytest.mark.parametrize("k", [1, 20, 100])
def test_products_are_exact_and_independent_of_threads(n_items, k):
    rng = np.random.default_rng(1)
    # Whole numbers: the products are exact, so any order of summation gives the same score, with many ties.
    queries = rng.integers(-3, 4, (300, 16)).astype(np.float32)
    vectors = rng.integers(-3, 4, (n_items, 16)).astype(np.float32)
    excluded = rng.random((300, n_items)) < 0.05

    one, two = (
        top_products(queries, lambda a, b: vectors[a:b], n_items, k, *pattern(excluded), n_jobs=n) for n in (1, 2)
    )

    expected = top_k(queries @ vectors.T, k, *pattern(excluded))
    for got_one, got_two, value in zip(one, two, expected, strict=True):
        np.testing.assert_array_equal(got_one, value)
        np.testing.assert_array_equal(got_two, value)


def test_a_users_scores_do_not_depend_on_who_is_scored_beside_them():
    rng = np.random.default_rng(2)
    queries = rng.standard_normal((401, 64)).astype(np.float32)
    vectors = rng.standard_normal((5000, 64)).astype(np.float32)
    empty = np.zeros(402, dtype=np.int64), np.zeros(0, dtype=np.int32)

    together = top_products(queries, lambda a, b: vectors[a:b], 5000, 50, *empty)

    for part in (slice(0, 1), slice(1, 8), slice(8, 71), slice(71, 72), slice(72, 201), slice(201, 401)):
        n = part.stop - part.start
        alone = top_products(queries[part], lambda a, b: vectors[a:b], 5000, 50, np.zeros(n + 1, np.int64), empty[1])
        for got, expected in zip(alone, together, strict=True):
            np.testing.assert_array_equal(got, expected[part])


def test_the_callers_torch_threads_stay_as_they_were():
    import torch

    before = torch.get_num_threads()
    vectors = np.ones((10, 4), dtype=np.float32)
    top_products(vectors, lambda a, b: vectors[a:b], 10, 2, np.zeros(11, np.int64), np.zeros(0, np.int32), n_jobs=1)
    assert torch.get_num_threads() == before


def test_a_query_that_is_not_finite_is_refused():
    queries = np.ones((5, 4), dtype=np.float32)
    queries[3, 2] = np.nan
    with pytest.raises(DataError, match="Query 3 "):
        top_products(queries, lambda a, b: np.ones((b - a, 4), np.float32), 9, 2, np.zeros(6, np.int64), np.zeros(0))


def test_frozen_queries_and_vectors_are_fine():
    vectors = np.arange(40, dtype=np.float32).reshape(10, 4)
    vectors.flags.writeable = False
    items, _ = top_products(vectors[:1], lambda a, b: vectors[a:b], 10, 2, np.zeros(2, np.int64), np.zeros(0, np.int32))
    assert items.tolist() == [[9, 8]]

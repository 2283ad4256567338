import numpy as np
import pytest

from recsparse.errors import ConfigError, DataError
from recsparse.models import IALS
from recsparse.scoring.similar import similar_items, similar_users


def by_definition(vectors, ids, asked, k):
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = (vectors @ vectors.T) / np.outer(lengths, lengths)
    np.fill_diagonal(cosines, -np.inf)
    order = np.argsort(-cosines[asked], axis=1, kind="stable")[:, :k]
    return ids[order].ravel(), np.take_along_axis(cosines[asked], order, axis=1).ravel()


def test_similar_items_have_the_greatest_cosines(ials, data):
    table = similar_items(ials, data.item_ids[[3, 50]].tolist(), k=5)
    expected, cosines = by_definition(ials.item_table_.to_dense().astype(np.float64), data.item_ids, [3, 50], 5)
    assert table["item_id"].to_pylist() == np.repeat(data.item_ids[[3, 50]], 5).tolist()
    assert table["similar_id"].to_pylist() == expected.tolist()
    assert table["rank"].to_pylist() == [1, 2, 3, 4, 5] * 2
    np.testing.assert_allclose(table["score"], cosines, rtol=1e-5)


def test_similar_users_have_the_greatest_cosines(ials, data):
    table = similar_users(ials, ["u9"], k=4)
    vectors = np.asarray(ials.fold_in(data), dtype=np.float64)
    expected, cosines = by_definition(vectors, data.user_ids, [9], 4)
    assert table["similar_id"].to_pylist() == expected.tolist()
    np.testing.assert_allclose(table["score"], cosines, rtol=1e-5)


def test_all_are_asked_for_by_default_and_nobody_is_like_himself(ials, data):
    table = similar_items(ials, k=1000)
    assert table.num_rows == 90 * 89
    assert not any(a == b for a, b in zip(table["item_id"].to_pylist(), table["similar_id"].to_pylist(), strict=True))


def test_who_has_no_vector_is_like_nobody(data):
    silent = data.select_entries(np.repeat(np.arange(300), np.diff(data.matrix.indptr)) != 2)
    assert similar_users(IALS(4, epochs=1).fit(silent), ["u2"]).num_rows == 0


def test_impossible_questions_are_refused(ials, ease):
    with pytest.raises(DataError, match="item -3 is not known"):
        similar_items(ials, [7, -3])
    with pytest.raises(ConfigError, match="'ease' model has no vectors"):
        similar_items(ease)
    with pytest.raises(ConfigError, match="k is 0"):
        similar_items(ials, k=0)

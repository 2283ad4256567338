import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError
from recsparse.interactions import Interactions, write
from recsparse.models import FeatureIALS
from recsparse.scoring import Filters, Scorer
from tests.scoring.conftest import assert_same, brute_force


@pytest.fixture(params=["ials", "ease"])
def model(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("k", [1, 10, 89, 200])
def test_lists_are_the_head_of_a_full_sort(model, strangers, k):
    assert_same(Scorer.of(model).top_k(strangers, k), brute_force(model, strangers, k))


def test_recommend_and_the_scorer_agree(model, strangers):
    table = Scorer.of(model).top_k(strangers, 10)
    pd.testing.assert_frame_equal(
        table.to_pandas(), model.recommend(histories=strangers, k=10), check_dtype=False, check_exact=True
    )
    assert table.schema.field("rank").type == pa.int32()
    assert table.schema.field("score").type == pa.float32()


def test_allow_deny_and_where_leave_the_exact_best_of_what_remains(model, strangers):
    ids = np.asarray(model.items_["item_id"])
    year = np.asarray(model.items_["year"])
    keep = np.isin(ids, ids[:60]) & ~np.isin(ids, ids[10:20]) & (year >= 2000)
    filters = Filters(
        allow=[*ids[:60].tolist(), -1], deny=[*ids[10:20].tolist(), -1], where="year >= 2000 OR genre = '!'"
    )
    assert_same(Scorer.of(model, filters).top_k(strangers, 10), brute_force(model, strangers, 10, keep=keep))


@pytest.mark.parametrize(("cap", "k"), [(1, 10), (2, 8), (3, 90)])
def test_a_cap_per_category_is_exact(model, strangers, cap, k):
    genres = model.items_["genre"].to_pylist()
    table = Scorer.of(model, Filters(per_category=("genre", cap))).top_k(strangers, k)
    assert_same(table, brute_force(model, strangers, k, cap=(genres, cap)))
    assert any(genre is None for genre in genres)  # they are not counted together


def test_seen_items_come_from_every_directory_named_and_denials_from_a_file(model, strangers, tmp_path):
    other = strangers.select_users(range(10, 40))
    moved = type(other)(other.matrix[:, ::-1].copy(), other.users, other.items)  # other items than in the history
    write(moved, tmp_path / "elsewhere")
    denied = pa.table({"user_id": ["u5003", "u5003", "nobody"], "item_id": [7, 17, 7]})
    pq.write_table(denied, tmp_path / "denials.parquet")
    excluded = strangers.matrix.toarray() != 0
    excluded[10:40] |= moved.matrix.toarray() != 0
    excluded[3, strangers.item_rows([7, 17])] = True

    filters = Filters(seen=[tmp_path / "elsewhere"], denials=tmp_path / "denials.parquet")
    assert_same(Scorer.of(model, filters).top_k(strangers, 20), brute_force(model, strangers, 20, excluded=excluded))


def test_seen_items_may_be_kept(model, strangers):
    nothing = np.zeros(strangers.shape, dtype=bool)
    table = Scorer.of(model, Filters(exclude_seen=False)).top_k(strangers, 5)
    assert_same(table, brute_force(model, strangers, 5, excluded=nothing))


def test_a_cold_user_gets_what_is_popular_in_the_group(model, data, strangers):
    first = strangers.select_users([0])
    table = Scorer.of(model, popularity_by="side").top_k(first, 3)

    side = np.asarray(data.users["side"]) == first.users["side"][0].as_py()
    counts = data.matrix.toarray()[side].sum(axis=0)
    best = np.argsort(-counts, kind="stable")[:3]
    assert table["item_id"].to_pylist() == data.item_ids[best].tolist()
    assert table["score"].to_pylist() == counts[best].tolist()
    assert set(table["status"].to_pylist()) == {"cold"}


def test_a_group_nobody_was_trained_in_falls_back_to_everybody(model, strangers):
    first = strangers.select_users([0])
    unknown = type(first)(first.matrix, first.users.set_column(1, "side", pa.array([77])), first.items)
    assert Scorer.of(model, popularity_by="side").top_k(unknown, 3).equals(Scorer.of(model).top_k(first, 3))


def test_the_filters_may_leave_a_user_nothing(model, data):
    ids = data.item_ids[data.matrix[[4]].indices]
    table = Scorer.of(model, Filters(allow=ids.tolist())).top_k(data.select_users([4]), 5)
    assert table.num_rows == 0
    assert table.schema.names == ["user_id", "item_id", "rank", "score", "status"]


@pytest.mark.parametrize(
    ("filters", "error", "says"),
    [
        (Filters(allow=[-1, -2]), DataError, "leave no item"),
        (Filters(where="year > 3000"), DataError, "leave no item"),
        (Filters(where="yaer > 2000"), ConfigError, "yaer"),
        (Filters(where="year > 2000; DROP TABLE items"), ConfigError, "does not work|one SQL expression"),
        (Filters(where="1=1) FROM items; SELECT (true"), ConfigError, "one SQL expression"),
        (Filters(per_category=("colour", 2)), ConfigError, "no column 'colour'"),
        (Filters(per_category=("genre", 0)), ConfigError, "at least 1"),
        (Filters(deny=[1, None]), DataError, "null"),
        (Filters(deny=[1, "a"]), DataError, "mixes types"),
    ],
)
def test_impossible_filters_are_refused(ials, filters, error, says):
    with pytest.raises(error, match=says):
        Scorer.of(ials, filters)


def test_an_unknown_feature_is_refused(ials):
    with pytest.raises(ConfigError, match="no column 'town'"):
        Scorer.of(ials, popularity_by="town")


def test_an_expression_cannot_read_files(ials, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    expression = f"(SELECT count(*) FROM read_csv('{tmp_path}/secret.csv')) > 0"
    with pytest.raises(ConfigError, match="disabled"):
        Scorer.of(ials, Filters(where=expression))


def test_cold_users_are_answered_by_their_features_where_the_model_knows_them() -> None:
    kinds = np.arange(40) % 4
    likes = (np.arange(80) % 4)[:, None] == kinds
    chance = np.random.default_rng(0).random(likes.shape)
    matrix = sp.csr_array((likes & (chance < 0.6)).astype(np.float32))
    users = pa.table({"user_id": np.arange(80), "taste": [f"kind {n % 4}" for n in range(80)]})
    items = pa.table({"item_id": np.arange(40), "kind": [f"kind {kind}" for kind in kinds]})
    scorer = Scorer.of(FeatureIALS(dim=8).fit(Interactions(matrix, users, items)))
    empty = sp.csr_array((2, 40), dtype=np.float32)
    new = Interactions(empty, pa.table({"user_id": [900, 901], "taste": ["kind 2", "kind 3"]}), items)
    lists = scorer.top_k(new, 8).to_pandas()
    assert (lists["status"] == "cold").all()
    assert (kinds[lists["item_id"]] == np.repeat([2, 3], 8)).all()
    nothing_known = Interactions(empty, pa.table({"user_id": [900, 901]}), items)
    popular = np.argsort(-matrix.sum(axis=0), kind="stable")[:8]
    assert scorer.top_k(nothing_known, 8)["item_id"].to_pylist() == [*popular, *popular]

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsparse.interactions import ITEM, USER, read, write
from recsparse.models import Recommender
from recsparse.scoring import Job, Summary


def lines(directory):
    return pq.read_table(directory).to_pandas()


def ids_file(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


def test_the_lists_are_those_of_the_model(say, model, tmp_path):
    said = say("score", model, "-o", tmp_path / "out", "--top", 3, "--json")
    assert said.code == 0, said.err
    summary = json.loads(said.out)
    got, expected = lines(tmp_path / "out"), Recommender.load(model).recommend(k=3)
    assert list(got.columns) == [USER, ITEM, "rank", "score", "status"]
    for column in (USER, ITEM, "rank", "status"):
        assert got[column].tolist() == expected[column].tolist()
    np.testing.assert_allclose(got["score"], expected["score"], rtol=1e-5)
    assert summary["lines"] == len(got)
    assert summary["complete"] is True
    assert "score: " in said.err
    assert "users/s" in said.err


def test_a_second_command_scores_nobody_again(say, model, tmp_path):
    words = ("score", model, "-o", tmp_path / "out", "--part-users", 10, "--json")
    first, second = (json.loads(say(*words).out) for _ in range(2))
    assert first["scored"] == first["users"] > 10
    assert second["scored"] == 0
    assert second["users"] == first["users"]


def test_shards_share_a_directory(say, model, tmp_path):
    for number in (1, 2):
        said = say("score", model, "-o", tmp_path / "out", "--part-users", 10, "--shard", f"{number}/2", "--json")
        assert json.loads(said.out)["complete"] is (number == 2)
    assert say("score", model, "-o", tmp_path / "whole").code == 0
    assert lines(tmp_path / "out").equals(lines(tmp_path / "whole"))


def test_filters(say, model, dataset, tmp_path):
    allow = ids_file(tmp_path / "allow.parquet", item_id=[7, 17, 27, 37])
    deny = ids_file(tmp_path / "deny.parquet", item_id=[17])
    user = read(model_data := dataset).user_ids[0]
    denials = ids_file(tmp_path / "denials.parquet", user_id=[user], item_id=[27])
    words = ("--allow", allow, "--deny", deny, "--denials", denials, "--where", "item_id < 37", "--keep-seen")
    said = say("score", model, "-o", tmp_path / "out", "--histories", model_data, *words, "--memory", "4GiB")
    assert said.code == 0, said.err
    got = lines(tmp_path / "out")
    assert set(got[ITEM]) == {7, 27}
    assert got.loc[got[USER] == user, ITEM].tolist() == [7]
    assert set(got["status"]) == {"folded-in"}


def test_seen_elsewhere_is_left_out(say, model, dataset, tmp_path):
    data = read(dataset)
    got = say("score", model, "-o", tmp_path / "out", "--keep-seen", "--seen", dataset, "--top", 30)
    assert got.code == 0, got.err
    pairs = data.to_frame()[[USER, ITEM]]
    assert lines(tmp_path / "out").merge(pairs, on=[USER, ITEM]).empty


def test_at_most_n_of_a_category(say, parts, tmp_path):
    train = read(parts / "train")
    decade = pa.array(np.arange(train.shape[1]) % 3)
    items = train.items.append_column("kind", decade)
    data = write(type(train)(train.matrix, train.users, items), tmp_path / "data")
    assert say("train", data, "-o", tmp_path / "model", "--set", "dim=4").code == 0
    words = ("--per-category", "kind:1", "--top", 3)
    said = say("score", tmp_path / "model", "-o", tmp_path / "out", *words)
    assert said.code == 0, said.err
    kind = dict(zip(items[ITEM].to_pylist(), decade.to_pylist(), strict=True))
    got = lines(tmp_path / "out")
    assert got.assign(kind=got[ITEM].map(kind)).groupby(USER)["kind"].nunique().eq(3).all()


def test_who_is_unknown_in_a_file_is_answered_as_cold(say, model, tmp_path):
    known = Recommender.load(model).users_[USER][0].as_py()
    file = ids_file(tmp_path / "users.parquet", user_id=[known, "stranger"])
    assert say("score", model, "-o", tmp_path / "out", "--users", file).code == 0
    got = lines(tmp_path / "out").groupby(USER)["status"].unique().to_dict()
    assert {user: list(status) for user, status in got.items()} == {known: ["warm"], "stranger": ["cold"]}


def test_one_user_by_hand(say, refused, model, tmp_path):
    known = Recommender.load(model).users_[USER][0].as_py()
    assert say("score", model, "-o", tmp_path / "out", "--user", known, "--top", 2).code == 0
    assert lines(tmp_path / "out")[USER].tolist() == [known, known]
    sentence = refused("score", model, "-o", tmp_path / "other", "--user", "nobody")
    assert "no user_id 'nobody'" in sentence
    assert known in sentence
    assert not (tmp_path / "other").exists()


def test_whole_numbers_typed_by_hand_are_the_data_s(say, tmp_path):
    pd.DataFrame({"user_id": [1, 2, 2, 3], "item_id": [5, 5, 6, 6]}).to_csv(tmp_path / "r.csv", index=False)
    assert say("build", tmp_path / "r.csv", "-o", tmp_path / "data").code == 0
    assert say("train", tmp_path / "data", "-o", tmp_path / "model", "--kind", "popularity").code == 0
    assert say("score", tmp_path / "model", "-o", tmp_path / "out", "--user", "3").code == 0
    assert lines(tmp_path / "out")[[USER, ITEM]].to_numpy().tolist() == [[3, 5]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--engine", "dask"), "it must be local or spark"),
        (("--master", "yarn"), "leave one out"),
        (("--shard", "3"), "--shard is '3'; it must be I/N"),
        (("--shard", "3/2"), "3/2"),
        (("--per-category", "kind"), "it must be COLUMN:N"),
        (("--per-category", "kind:2"), "no column 'kind'"),
        (("--memory", "much"), "'much' is not a size"),
        (("--where", "year >"), "'year >' does not work"),
        (("--users", "nowhere.parquet"), "nowhere.parquet"),
        (("--users", "a.parquet", "--user", "b"), "name the users one way"),
        (("--histories", "nowhere"), "nowhere"),
    ],
)
def test_what_is_refused(refused, model, tmp_path, words, expected):
    assert expected in refused("score", model, "-o", tmp_path / "out", *words)
    assert not list(tmp_path.glob("out/part*"))


def test_no_items_a_user(refused, model, tmp_path):
    assert "'--top'" in refused("score", model, "-o", tmp_path / "out", "--top", 0, code=2)
    assert not (tmp_path / "out").exists()


def test_another_job_in_the_same_directory(say, refused, model, tmp_path):
    assert say("score", model, "-o", tmp_path / "out").code == 0
    assert "k was 20, is 5" in refused("score", model, "-o", tmp_path / "out", "--top", 5)


def test_not_a_model(refused, tmp_path):
    assert str(tmp_path) in refused("score", tmp_path / "nothing", "-o", tmp_path / "out")


def test_spark_is_asked_for_the_same_job(say, model, tmp_path, monkeypatch):
    """That the parts are the same bytes is proven in tests/scoring."""
    asked = {}

    def recommend(*place, master):
        asked.update(place=place, master=master)
        return Summary(users=1, scored=1, parts=1, lines=1, bytes=1, seconds=1.0, peak_bytes=1, complete=True)

    monkeypatch.setattr("recsparse.scoring.spark.recommend_on_spark", recommend)
    words = ("--top", 5, "--part-users", 20, "--engine", "spark", "--master", "local[2]")
    assert say("score", model, "-o", tmp_path / "out", *words).code == 0
    assert asked == {"place": (model, tmp_path / "out", Job(k=5, part_users=20)), "master": "local[2]"}

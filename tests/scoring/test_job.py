import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.interactions import write
from recsparse.models import Recommender
from recsparse.scoring import Filters, Job, Scorer, recommend_to_parquet
from tests.scoring.conftest import assert_same, brute_force

JOB = Job(k=7, part_users=64)


def parts(directory):
    return sorted(file.name for file in directory.glob("part-*"))


def test_every_trained_user_is_written_in_order(ials, data, tmp_path):
    summary = recommend_to_parquet(ials, tmp_path / "out", JOB)

    assert parts(tmp_path / "out") == [f"part-0000{n}.parquet" for n in range(5)]
    table = pq.read_table(tmp_path / "out")  # `_` and `.` names are passed over
    assert_same(table, brute_force(ials, data, 7, trained=True))
    assert table.column_names == ["user_id", "item_id", "rank", "score", "status"]
    assert table.schema.field("score").type == pa.float32()
    assert (summary.users, summary.scored, summary.parts, summary.lines) == (300, 300, 5, table.num_rows)
    assert summary.complete
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert summary.bytes == sum(file.stat().st_size for file in (tmp_path / "out").glob("part-*"))


@pytest.mark.parametrize("kind", ["ials", "ease"])
def test_histories_are_streamed_and_folded_in(kind, request, strangers, strangers_directory, tmp_path):
    model = request.getfixturevalue(kind)
    recommend_to_parquet(model, tmp_path / "out", replace(JOB, histories=strangers_directory, part_users=30))
    table = pq.read_table(tmp_path / "out")
    assert_same(table, brute_force(model, strangers, 7))
    assert set(table["status"].to_pylist()) == {"cold", "folded-in"}
    assert table.equals(Scorer.of(model).top_k(strangers, 7))


def test_the_result_depends_neither_on_parts_nor_on_blocks_nor_on_shards(ials, tmp_path, monkeypatch):
    recommend_to_parquet(ials, tmp_path / "whole", replace(JOB, part_users=1000))
    monkeypatch.setattr("recsparse.scoring.memory.MOST", 13)
    for i in (2, 1, 3):
        summary = recommend_to_parquet(ials, tmp_path / "shards", replace(JOB, part_users=11), shard=(i, 3))
        assert summary.complete == (i == 3)
        assert (tmp_path / "shards" / "_SUCCESS").exists() == (i == 3)
    assert pq.read_table(tmp_path / "shards").equals(pq.read_table(tmp_path / "whole"))


def test_listed_users_are_answered_once_each_and_unknown_ones_are_cold(ials, data, tmp_path):
    asked = ["u7", "nobody", "u3", "u7"]
    recommend_to_parquet(ials, tmp_path / "list", replace(JOB, users=asked))
    table = pq.read_table(tmp_path / "list").to_pandas()

    expected = brute_force(ials, data.select_users([7, 3]), 7, trained=True)
    pd.testing.assert_series_equal(
        table["item_id"][table["status"] == "warm"].reset_index(drop=True), expected["item_id"]
    )
    assert table["user_id"].unique().tolist() == ["u7", "nobody", "u3"]
    cold = table[table["user_id"] == "nobody"]
    assert set(cold["status"]) == {"cold"}
    popular = data.item_ids[np.argsort(-ials.popularity_, kind="stable")[:7]]
    assert cold["item_id"].tolist() == popular.tolist()

    pq.write_table(pa.table({"user_id": asked}), tmp_path / "users.parquet")
    recommend_to_parquet(ials, tmp_path / "file", replace(JOB, users=tmp_path / "users.parquet"))
    assert pq.read_table(tmp_path / "file").equals(pq.read_table(tmp_path / "list"))


def test_a_file_of_users_brings_their_features(ials, data, tmp_path):
    users = pa.table({"user_id": ["new"], "side": pa.array([1])})
    pq.write_table(users, tmp_path / "users.parquet")
    job = replace(JOB, users=tmp_path / "users.parquet", popularity_by="side")
    recommend_to_parquet(ials, tmp_path / "out", job)
    counts = data.matrix.toarray()[np.asarray(data.users["side"]) == 1].sum(axis=0)
    best = data.item_ids[np.argsort(-counts, kind="stable")[:7]]
    assert pq.read_table(tmp_path / "out")["item_id"].to_pylist() == best.tolist()


def test_some_users_of_a_dataset(ials, strangers, strangers_directory, tmp_path):
    job = replace(JOB, histories=strangers_directory, users=["u5010", "u5001", "u1"])
    recommend_to_parquet(ials, tmp_path / "out", job)
    table = pq.read_table(tmp_path / "out")
    expected = brute_force(ials, strangers.select_users([10, 1]), 7)
    assert_same(table.slice(0, 14), expected)
    assert set(table["status"].to_pylist()[14:]) == {"cold"}  # trained on, but not in the dataset asked for


def test_no_users_give_an_empty_part(ials, tmp_path):
    summary = recommend_to_parquet(ials, tmp_path / "out", replace(JOB, users=[]))
    assert summary.complete
    assert pq.read_table(tmp_path / "out").num_rows == 0


def test_a_second_call_leaves_finished_parts_untouched(ials, tmp_path):
    out = tmp_path / "out"
    recommend_to_parquet(ials, out, JOB)
    whole = pq.read_table(out)
    (out / "part-00003.parquet").unlink()
    (out / "_SUCCESS").unlink()
    (out / ".part-00003.parquet.partial-1-dead").write_bytes(b"half")
    before = {file.name: file.stat().st_mtime_ns for file in out.glob("part-*")}

    summary = recommend_to_parquet(ials, out, JOB)

    assert (summary.users, summary.scored) == (300, 64)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert pq.read_table(out).equals(whole)
    assert sorted(file.name for file in out.iterdir() if not file.name.startswith("part")) == [
        "_SUCCESS", "_lock", "_manifest.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"k": 8}, "k was 7, is 8"),
        ({"part_users": 65}, "part_users"),
        ({"filters": Filters(deny=[7])}, "deny"),
        ({"users": ["u1"]}, "users"),
        ({"popularity_by": "side"}, "popularity_by"),
    ],
)
def test_parts_of_other_settings_are_not_mixed(ials, tmp_path, change, named):
    recommend_to_parquet(ials, tmp_path / "out", JOB, shard=(1, 5))
    with pytest.raises(DataError, match=named):
        recommend_to_parquet(ials, tmp_path / "out", replace(JOB, **change), shard=(2, 5))
    assert parts(tmp_path / "out") == ["part-00000.parquet"]


def test_parts_of_other_models_are_not_mixed(ials, ease, tmp_path):
    recommend_to_parquet(ials, tmp_path / "out", JOB, shard=(1, 5))
    with pytest.raises(DataError, match="model was"):
        recommend_to_parquet(ease, tmp_path / "out", JOB, shard=(2, 5))


def test_a_saved_model_is_the_same_job(ials, model_directory, tmp_path):
    recommend_to_parquet(ials, tmp_path / "out", JOB, shard=(1, 2))
    assert recommend_to_parquet(model_directory, tmp_path / "out", JOB, shard=(2, 2)).complete
    assert Recommender.load(model_directory).get_params() == ials.get_params()


def test_changed_bytes_of_a_file_that_was_used_are_noticed(ials, tmp_path):
    pq.write_table(pa.table({"user_id": ["u1"]}), tmp_path / "users.parquet")
    job = replace(JOB, users=tmp_path / "users.parquet")
    recommend_to_parquet(ials, tmp_path / "out", job)
    pq.write_table(pa.table({"user_id": ["u2"]}), tmp_path / "users.parquet")
    with pytest.raises(DataError, match="users was"):
        recommend_to_parquet(ials, tmp_path / "out", job)


@pytest.mark.parametrize("where", [0.02, 0.5, 0.98])
def test_a_corrupted_part_is_found_and_named(ials, tmp_path, where):
    out = tmp_path / "out"
    recommend_to_parquet(ials, out, JOB)
    file = out / "part-00002.parquet"
    whole = bytearray(file.read_bytes())
    middle = int(len(whole) * where)
    damaged = whole.copy()
    damaged[middle : middle + 8] = bytes(byte ^ 0xFF for byte in damaged[middle : middle + 8])
    file.write_bytes(damaged)

    with pytest.raises((FormatError, DataError), match=r"part-00002.*delete it"):
        recommend_to_parquet(ials, out, JOB)

    file.unlink()
    recommend_to_parquet(ials, out, JOB)
    assert file.read_bytes() == whole


def test_a_part_from_elsewhere_is_refused(ials, ease, tmp_path):
    recommend_to_parquet(ials, tmp_path / "a", JOB)
    recommend_to_parquet(ease, tmp_path / "b", JOB)
    (tmp_path / "b" / "part-00001.parquet").replace(tmp_path / "a" / "part-00001.parquet")
    with pytest.raises(DataError, match="not made by the job"):
        recommend_to_parquet(ials, tmp_path / "a", JOB)


def test_a_directory_of_something_else_is_refused(ials, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "part-00000.parquet").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"no _manifest\.json"):
        recommend_to_parquet(ials, tmp_path / "a", JOB)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "_manifest.json").write_text("{")
    with pytest.raises(FormatError, match="damaged"):
        recommend_to_parquet(ials, tmp_path / "b", JOB)
    (tmp_path / "b" / "_manifest.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(DataError, match="not a manifest"):
        recommend_to_parquet(ials, tmp_path / "b", JOB)


def test_another_catalogue_is_refused_unless_matching_is_asked_for(ials, strangers, tmp_path):
    renamed = strangers.items.set_column(0, "item_id", pa.array(np.r_[np.asarray(strangers.items["item_id"])[:-1], -5]))
    other = type(strangers)(strangers.matrix, strangers.users, renamed)
    write(other, tmp_path / "other")
    job = replace(JOB, histories=tmp_path / "other")
    with pytest.raises(DataError, match="another catalogue"):
        recommend_to_parquet(ials, tmp_path / "out", job)
    assert not (tmp_path / "out").exists()

    recommend_to_parquet(ials, tmp_path / "out", replace(job, match_items=True))
    assert pq.read_table(tmp_path / "out").equals(Scorer.of(ials).top_k(other, 7))


def test_a_catalogue_that_shares_nothing_is_refused(ials, strangers, tmp_path):
    items = strangers.items.set_column(0, "item_id", pa.array([f"i{n}" for n in range(90)]))
    write(type(strangers)(strangers.matrix, strangers.users, items), tmp_path / "other")
    with pytest.raises(DataError, match="share no item"):
        recommend_to_parquet(ials, tmp_path / "out", Job(histories=tmp_path / "other", match_items=True))


@pytest.mark.parametrize(
    ("job", "shard", "error", "says"),
    [
        (Job(users=[1, 2]), (1, 1), DataError, "whole numbers.*text"),
        (Job(users=["u1", None]), (1, 1), DataError, "Entry 1 of the user_ids is null"),
        (Job(), (0, 3), ConfigError, "0/3"),
        (Job(), (4, 3), ConfigError, "4/3"),
        (Job(memory="2 potatoes"), (1, 1), ConfigError, "2 potatoes"),
        (Job(memory="20MB"), (1, 1), ConfigError, "cannot be kept.*at least"),
    ],
)
def test_impossible_jobs_are_refused(ials, tmp_path, job, shard, error, says):
    with pytest.raises(error, match=says):
        recommend_to_parquet(ials, tmp_path / "out", job, shard=shard)
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.parametrize("setting", ["k", "part_users"])
def test_settings_below_one_are_refused(setting):
    with pytest.raises(ConfigError, match=f"{setting} is 0"):
        Job(**{setting: 0})


def test_progress_counts_every_user_and_estimates_the_rest(ials, tmp_path):
    seen = []
    recommend_to_parquet(ials, tmp_path / "out", JOB, progress=seen.append)
    assert [step.done for step in seen] == [64, 128, 192, 256, 300]
    assert {step.total for step in seen} == {300}
    assert seen[-1].seconds_left == 0
    assert all(step.users_per_second > 0 for step in seen)

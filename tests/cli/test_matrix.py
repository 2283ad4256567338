import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from recsparse.interactions import USER, read, read_split


def test_build_and_append_equal_one_build(say, csv, tmp_path):
    frame = pd.read_csv(csv)
    half = len(frame) // 2
    frame[:half].to_csv(tmp_path / "old.csv", index=False)
    frame[half:].to_csv(tmp_path / "new.csv", index=False)
    words = ("--value", "rating", "--time", "time")
    assert say("build", tmp_path / "old.csv", "-o", tmp_path / "data", *words, "--min-value", 3).code == 0
    said = say("build", tmp_path / "new.csv", "-o", tmp_path / "data", *words, "--append", "--json")
    assert said.code == 0, said.err
    assert say("build", csv, "-o", tmp_path / "whole", *words, "--min-value", 3).code == 0
    grown, whole = read(tmp_path / "data"), read(tmp_path / "whole")
    assert (grown.matrix != whole.matrix).nnz == 0
    assert json.loads(said.out)["interactions"] == whole.nnz == (frame["rating"] >= 3).sum()


def test_append_cleans_as_before(refused, dataset, csv):
    sentence = refused("build", csv, "-o", dataset, "--append", "--min-value", 3, "--overwrite")
    assert "leave out --min-value, --overwrite" in sentence


def test_columns_by_number_and_no_header(say, tmp_path):
    (tmp_path / "r.dat").write_text("5::a::3\n6::b::4\n")
    words = ("--user", 2, "--item", 1, "--value", 3, "--no-header", "--delimiter", "::")
    assert say("build", tmp_path / "r.dat", "-o", tmp_path / "data", *words).code == 0
    data = read(tmp_path / "data")
    assert data.user_ids.tolist() == ["a", "b"]
    assert data.item_ids.tolist() == [5, 6]
    assert data.matrix.toarray().tolist() == [[3, 0], [0, 4]]


def test_a_description_with_features(say, refused, tmp_path):
    (tmp_path / "r.csv").write_text("user_id,item_id\n1,7\n2,8\n")
    (tmp_path / "i.csv").write_text("id,year\n7,1999\n8,2001\n")
    (tmp_path / "mine.toml").write_text(
        f'ratings.path = "{tmp_path}/r.csv"\n[items]\npath = "{tmp_path}/i.csv"\nid = "id"\ncolumns.year = "year"\n'
    )
    assert say("build", tmp_path / "mine.toml", "-o", tmp_path / "data").code == 0
    assert read(tmp_path / "data").items["year"].to_pylist() == [1999, 2001]
    sentence = refused("build", tmp_path / "mine.toml", "-o", tmp_path / "other", "--user", "id")
    assert "leave out --user" in sentence
    (tmp_path / "mine.toml").write_text("rating = 1")
    assert "rating: there is no such key" in refused("build", tmp_path / "mine.toml", "-o", tmp_path / "other")


def test_a_card_says_itself_how_it_is_read(refused, tmp_path):
    assert "leave out --delimiter" in refused("build", "ml-100k", "-o", tmp_path / "data", "--delimiter", ",")


def test_split_by_protocol(say, dataset, tmp_path):
    said = say("split", dataset, "-o", tmp_path / "split", "--protocol", "leave-last", "--set", "n=2", "--json")
    assert said.code == 0, said.err
    parts = read_split(tmp_path / "split")
    assert set(parts.test.target.matrix.sum(axis=1).tolist())
    assert (parts.test.target.matrix != 0).sum(axis=1).tolist() == [2] * parts.test.target.shape[0]
    assert json.loads(said.out)["test"]["target"] == parts.test.target.nnz


def test_split_into_published_parts(say, refused, csv, tmp_path):
    frame = pd.read_csv(csv).sample(frac=1, random_state=0)
    cuts = {"train": frame[60:], "validation": frame[:30], "test": frame[30:60]}
    for name, part in cuts.items():
        part.to_csv(tmp_path / f"{name}.csv", index=False)
        assert say("build", tmp_path / f"{name}.csv", "-o", tmp_path / name, "--value", "rating").code == 0
    words = ("--protocol", "parts", "--validation", tmp_path / "validation", "--test", tmp_path / "test")
    assert say("split", tmp_path / "train", "-o", tmp_path / "split", *words).code == 0
    parts = read_split(tmp_path / "split")
    assert [part.nnz for part in (parts.train, parts.validation.target, parts.test.target)] == [len(frame) - 60, 30, 30]
    assert "has no option 'seed'" in refused("split", tmp_path / "train", "-o", tmp_path / "s", *words, "--seed", 1)


def test_split_as_mult_vae(say, dataset, tmp_path):
    words = ("--protocol", "mult-vae", "--set", "heldout=10")
    assert say("split", dataset, "-o", tmp_path / "split", *words).code == 0
    assert read_split(tmp_path / "split").about["options"]["heldout"] == 10


def test_stats_and_synth(say, refused, tmp_path):
    words = ("--users", 200, "--items", 300, "--interactions", 3000, "--seed", 3)
    assert say("data", "synth", "-o", tmp_path / "made", *words, "--format", "parquet").code == 0
    assert pq.read_table(tmp_path / "made" / "ratings.parquet")[USER].to_pandas().nunique() == 200
    assert say("build", tmp_path / "made" / "ratings.parquet", "-o", tmp_path / "data", "--value", "rating").code == 0
    said = json.loads(say("data", "stats", tmp_path / "data", "-o", tmp_path / "s.html", "--json").out)
    assert said["interactions"] == read(tmp_path / "data").nnz
    assert said["activity"]["mean"] == pytest.approx(said["interactions"] / said["users"])
    assert "data" in (tmp_path / "s.html").read_text()
    assert "Gini" in say("data", "stats", tmp_path / "data").out
    assert "it must be csv or parquet" in refused("data", "synth", "-o", tmp_path / "x", "--format", "xml")


def test_cards(say):
    listed = json.loads(say("data", "list", "--json").out)["cards"]
    assert "ml-100k" in {card["name"] for card in listed}
    assert "ml-100k" in say("data", "list").out
    shown = say("data", "show", "ml-100k")
    assert "943" in shown.out
    assert json.loads(say("data", "show", "ml-100k", "--json").out)["counts"]["users"] == 943


@pytest.mark.spark
def test_spark_makes_the_same_files(say, csv, dataset, tmp_path):
    words = ("--value", "rating", "--time", "time", "--engine", "spark", "--master", "local[2]")
    said = say("build", csv, "-o", tmp_path / "data", *words)
    assert said.code == 0, said.err
    for file in dataset.rglob("*.parquet"):
        assert file.read_bytes() == (tmp_path / "data" / file.relative_to(dataset)).read_bytes(), file.name

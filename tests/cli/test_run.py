import json
import math
import subprocess

import pandas as pd
import pytest

PIPELINE = """
name = "tiny"
data.source.ratings = {{ path = "{csv}", value = "rating" }}
split = {{ seed = 1, options = {{ validation = 0.2, test = 0.3 }} }}
[[models]]
kind = "popularity"
[[models]]
kind = "ials"
params = {{ dim = 4, epochs = 2 }}
value_types = ["fp32", "int8"]
"""


@pytest.fixture(scope="module")
def pipeline(csv, tmp_path_factory):
    file = tmp_path_factory.mktemp("pipeline") / "tiny.toml"
    file.write_text(PIPELINE.format(csv=csv))
    return file


@pytest.fixture(scope="module")
def finished(pipeline, tmp_path_factory):
    from recsparse.pipeline import Run

    directory = tmp_path_factory.mktemp("finished") / "run"
    Run.read(pipeline, directory=directory)("recsparse run tiny.toml")
    return directory


def rows(directory):
    found = json.loads((directory / "results.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key != "cost"} for row in found]


def test_a_run_ends_with_a_table_and_paths(say, pipeline, finished):
    said = say("run", pipeline, "-o", finished)
    assert said.code == 0, said.err
    for words in ("Popularity", "iALS 4 int8", "Ship ", "95 %", str(finished / "report.html")):
        assert words in said.out
    assert said.err == ""  # nothing was left to do
    answer = json.loads(say("run", pipeline, "-o", finished, "--json").out)
    assert answer["ship"].startswith("iALS 4")
    assert answer["report"] == str(finished / "report.html")


def test_a_dry_run(say, pipeline, finished, tmp_path):
    said = say("run", pipeline, "-o", tmp_path / "run", "--dry-run", "--json")
    stages = json.loads(said.out)["stages"]
    assert [each["stage"] for each in stages] == [
        "build", "split", "train Popularity", "train iALS 4", "train iALS 4 int8", "evaluate Popularity",
        "evaluate iALS 4", "evaluate iALS 4 int8", "recommend", "audit", "report",
    ]  # fmt: skip
    assert not any(each["up_to_date"] for each in stages)
    assert not (tmp_path / "run").exists()
    assert "0 of 11 stages would run." in say("run", pipeline, "-o", finished, "--dry-run").out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            'kind = "ials"',
            'kind = "ials"\ncolour = 1',
            "models.1.colour: there is no such key; allowed are kind",
        ),
        ('"int8"', '"int7"', "models.1.value_types.1: 'int7' is not allowed: input should be 'fp32', 'fp16'"),
        ("dim = 4", "dim = 4.5", "models.1.params: dim: 4.5 is not allowed: input should be a valid integer"),
        ('name = "tiny"', "name = 7", "name: 7 is not allowed: input should be a valid string"),
        ('name = "tiny"', 'name = "tiny', "is not TOML"),
        ("data.source", "dat.source", "dat: there is no such key; allowed are data, evaluation, models"),
        ("epochs = 2", "epochs = 0", "models.1: epochs is 0; it must be a whole number of at least 1"),
        ("value = ", "valu = ", "data.source.ratings.valu: there is no such key; allowed are delimiter"),
        ('value = "rating"', 'value = "stars"', "no column 'stars'"),
    ],
)
def test_a_pipeline_file_that_cannot_run(refused, pipeline, tmp_path, old, new, expected):
    text = pipeline.read_text()
    assert old in text
    (tmp_path / "p.toml").write_text(text.replace(old, new, 1))
    sentence = refused("run", tmp_path / "p.toml", "-o", tmp_path / "run")
    assert expected in sentence
    if "stars" not in expected:
        assert sentence.startswith(str(tmp_path / "p.toml"))


def test_no_pipeline_file(refused, tmp_path):
    assert "cannot be read: No such file" in refused("run", tmp_path / "nothing.toml")
    assert "nothing.csv" in refused_source(refused, tmp_path)


def refused_source(refused, tmp_path):
    (tmp_path / "p.toml").write_text(PIPELINE.format(csv=tmp_path / "nothing.csv"))
    return refused("run", tmp_path / "p.toml", "-o", tmp_path / "run")


def test_runs_that_are_compared(say, refused, finished):
    said = say("compare", finished, finished, "--row", "iALS 4", "--json")
    assert said.code == 0, said.err
    [difference] = json.loads(said.out)["differences"]
    assert difference["difference"] == 0
    assert difference["metric"] == "ndcg@20"
    assert "+0.0000" in say("compare", finished, finished, "--metric", "recall@20").out
    quick = say("compare", finished, finished, "--permutations", "0", "--json").out
    assert math.isnan(json.loads(quick)["differences"][0]["p_permutation"] or math.nan)
    assert "has no row 'iALS 5'" in refused("compare", finished, finished, "--row", "iALS 5")
    assert "at least two" in refused("compare", finished)


def test_a_report_from_results(say, finished, tmp_path):
    assert say("report", finished / "results.json", "-o", tmp_path / "report.html").code == 0
    assert "iALS 4 int8" in (tmp_path / "report.html").read_text()


def test_a_disk_that_fills_up_and_is_given_room(say, refused, pipeline, finished, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    tried = subprocess.run(mount, check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no small file system can be mounted here ({tried.stderr.strip()}); it takes root")
    try:
        for kilobytes in (100, 180, 320, 700):
            subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(place)], check=True)
            assert "No space left on device" in refused("run", pipeline, "-o", place / "run")
            assert not list(place.rglob(".*partial*"))
        subprocess.run(["mount", "-o", "remount,size=50m", str(place)], check=True)
        assert say("run", pipeline, "-o", place / "run").code == 0
        assert rows(place / "run") == rows(finished)
        assert len(pd.read_parquet(place / "run" / "recommendations")) > 0
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)

"""Every bad input: one clear sentence on stderr, an exit code that is not 0, and nothing half written."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import pandas as pd
import pytest

from recsparse.interactions import cards
from recsparse.tables.seal import FORMAT_VERSION

NOWHERE = "http://127.0.0.1:9"
"""The discard port: a connection is refused at once."""


def write(path, text):
    path.write_text(text)
    return path


def everything(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("user_id,film\n1,2\n", (), "no column 'item_id'; it has user_id, film"),
        ("user_id,item_id\n1,2\n", ("--value", "rating"), "no column 'rating'"),
        ("user_id,film\n1,2\n", (), "Name its columns with --user, --item, --value and --time."),
        ("user_id,item_id,rating\n1,2,4\n1,3,many\n", ("--value", "rating"), "many"),
        ("user_id,item_id,rating\n1,2,4\n1,3,NaN\n", ("--value", "rating"), "NaN"),
        ("user_id,item_id,rating\n1,2,4\n1,3,inf\n", ("--value", "rating"), "inf"),
        ("user_id,item_id,rating\n1,2,4\n,3,5\n", ("--value", "rating"), "user"),
        ("", (), "is empty"),
        ("user_id,item_id\n", (), "r.csv"),
        ("user_id,item_id,time\n1,2,noon\n", ("--time", "time"), "noon"),
        ("user_id,item_id\n1,2\n", ("--min-user", 5), "left"),
        ("user_id,item_id\n1,2\n", ("--min-user", -1), "min_user: -1 is not allowed"),
        ("user_id,item_id\n1,2\n", ("--duplicates", "first"), "'last', 'max', 'sum' or 'count'"),
        ("user_id,item_id\n1,2\n", ("--engine", "dask"), "it must be duckdb or spark"),
        ("user_id,item_id\n1,2\n", ("--master", "yarn"), "add --engine spark"),
    ],
)
def test_ratings_that_cannot_be_used(refused, tmp_path, text, words, expected):
    file = write(tmp_path / "r.csv", text)
    assert expected in refused("build", file, "-o", tmp_path / "data", *words)
    assert everything(tmp_path) == ["r.csv"]


def test_truncated_parquet(refused, dataset, csv, tmp_path):
    pd.read_csv(csv).to_parquet(tmp_path / "r.parquet")
    whole = (tmp_path / "r.parquet").read_bytes()
    (tmp_path / "r.parquet").write_bytes(whole[: len(whole) // 2])
    assert "r.parquet" in refused("build", tmp_path / "r.parquet", "-o", tmp_path / "data")
    copy = shutil.copytree(dataset, tmp_path / "copy")
    part = next((copy / "interactions").iterdir())
    part.write_bytes(part.read_bytes()[:-100])
    for words in (("split", copy), ("data", "stats", copy), ("train", copy)):
        assert part.name in refused(*words, "-o", tmp_path / "out")
    assert everything(tmp_path / "copy") == everything(dataset)
    assert not (tmp_path / "out").exists()


def test_no_file_and_no_dataset(refused, tmp_path):
    assert "There is no data file at" in refused("build", tmp_path / "nothing.csv", "-o", tmp_path / "data")
    assert "Make one with build" in refused("split", tmp_path, "-o", tmp_path / "split")
    assert "Make one with split" in refused("evaluate", tmp_path, tmp_path)
    assert "There is no dataset card 'netflix-2'" in refused("data", "show", "netflix-2")
    assert everything(tmp_path) == []


def test_what_is_there_is_not_overwritten(refused, csv, dataset, parts, model):
    before = {place: everything(place) for place in (dataset, parts, model)}
    assert "--overwrite" in refused("build", csv, "-o", dataset)
    assert "--overwrite" in refused("split", dataset, "-o", parts)
    assert "--overwrite" in refused("train", parts, "-o", model, "--set", "epochs=1")
    assert before == {place: everything(place) for place in (dataset, parts, model)}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--kind", "ialz"), "There is no model 'ialz'"),
        (("--set", "dmi=8"), "--set: dmi: there is no such key; allowed are"),
        (("--set", "dim=eight"), "--set: dim: 'eight' is not allowed: input should be a valid integer"),
        (("--set", "dim=0"), "dim is 0; it must be a whole number of at least 1"),
        (("--set", "dim"), "it must be NAME=VALUE"),
        (("--set", "recipe.density=2"), "density: 2 is not allowed"),
        (("--set", "dim=8", "--set", "dim.x=8"), "dim.x: dim is 8, which has no x"),
        (("--set", "value_type=int9"), "int9"),
    ],
)
def test_models_that_cannot_be_made(refused, parts, tmp_path, words, expected):
    assert expected in refused("train", parts, "-o", tmp_path / "model", *words)
    assert everything(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--protocol", "weak"), "There is no protocol 'weak'; there are"),
        (("--set", "tset=0.1"), "has no option 'tset'; it has: validation, test"),
        (("--set", "test=2000"), "cannot be held out"),
        (("--protocol", "parts"), "needs --validation and --test"),
        (("--protocol", "mult-vae", "--set", "users=5"), "has no option 'users'; it has: heldout"),
        (("--validation", "v", "--test", "t"), "add --protocol parts"),
    ],
)
def test_splits_that_cannot_be_made(refused, dataset, tmp_path, words, expected):
    assert expected in refused("split", dataset, "-o", tmp_path / "split", *words)
    assert everything(tmp_path) == []


def damaged(model, tmp_path, damage):
    copy = shutil.copytree(model, tmp_path / "model")
    file = copy / "item_table.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    return copy, file


def of_version(number):
    """A table's bytes as a newer release might have written them."""

    def damage(data):
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        about = json.loads(header["__metadata__"]["recsparse"])
        header["__metadata__"]["recsparse"] = json.dumps(about | {"format_version": number})
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return damage


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda data: data[:-16], "item_table.safetensors"),
        (lambda data: data[:5], "cannot be read as a safetensors file"),
        (lambda data: b"", "cannot be read as a safetensors file"),
        (lambda data: b"PAR1" + data[4:], "item_table.safetensors"),
        (lambda data: data[:9] + b"\xff" * 9 + data[18:], "cannot be read as a safetensors file"),
        (
            of_version(FORMAT_VERSION + 1),
            f"version {FORMAT_VERSION + 1}; this release reads {FORMAT_VERSION}",
        ),
    ],
    ids=["cut short", "five bytes", "empty", "not safetensors", "header overwritten", "newer version"],
)
def test_a_damaged_table(refused, model, parts, tmp_path, damage, expected):
    copy, file = damaged(model, tmp_path, damage)
    for words in (
        ("inspect", file), ("evaluate", copy, parts, "-o", tmp_path / "e"), ("score", copy, "-o", tmp_path / "s")
    ):  # fmt: skip
        assert expected in refused(*words)
    assert everything(tmp_path) == sorted(["model", *(f"model/{name}" for name in everything(model))])


def test_a_model_of_a_newer_version(refused, model, parts, tmp_path):
    copy = shutil.copytree(model, tmp_path / "model")
    header = json.loads((copy / "model.json").read_text())
    write(copy / "model.json", json.dumps(header | {"format_version": 99}))
    assert "has format version 99" in refused("evaluate", copy, parts)


def test_a_metric_that_is_not_there(refused, model, parts):
    assert "There is no metric 'ndgc@20'" in refused("evaluate", model, parts, "--metric", "ndgc@20")
    assert "it must be test or validation" in refused("evaluate", model, parts, "--on", "train")


def test_results_that_cannot_be_read(refused, tmp_path):
    assert "results.json" in refused("report", tmp_path / "results.json", "-o", tmp_path / "r.html")
    write(tmp_path / "results.json", '{"format_version": 1}')
    assert "results.json" in refused("report", tmp_path / "results.json", "-o", tmp_path / "r.html")
    assert "results.json" in refused("compare", tmp_path, tmp_path / "other")
    assert everything(tmp_path) == ["results.json"]


@pytest.fixture
def card(tmp_path, monkeypatch):
    """Write a dataset card and make it the only one there is."""
    folder = tmp_path / "cards"
    folder.mkdir()
    monkeypatch.setattr(cards, "_directory", lambda: folder)
    monkeypatch.setenv("RECSPARSE_CACHE", str(tmp_path / "cache"))

    def make(url, sha256):
        text = """
            title = "Mine"
            about = "A test."
            licence = "CC0"
            redistribution = "yes"
            citation = "none"
            homepage = "https://example.org/mine"
            [[origins]]
            name = "here"
            urls = ["{url}"]
            sha256 = "{sha256}"
            [origins.read.ratings]
            path = "ratings.csv"
        """
        write(folder / "mine.toml", text.format(url=url, sha256=sha256))

    return make


@pytest.fixture
def server(csv, tmp_path, monkeypatch):
    """A web server on this machine that has the ratings."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    serving = HTTPServer(("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(csv.parent)))
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{serving.server_port}/ratings.csv"
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_a_wrong_checksum(say, refused, card, server, csv, tmp_path):
    card(server, "0" * 64)
    for words in (("data", "fetch", "mine"), ("build", "mine", "-o", tmp_path / "data")):
        sentence = refused(*words)
        assert "its dataset card says 0000" in sentence
        assert hashlib.sha256(csv.read_bytes()).hexdigest() in sentence
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "cache" / "mine").exists()
    card(server, hashlib.sha256(csv.read_bytes()).hexdigest())
    assert say("data", "fetch", "mine").code == 0


def test_no_network_and_no_cache(tmp_path):
    """The real command, and the real card, where nothing can be reached: not the origin, not a package index."""
    pipeline = Path(__file__).parents[2] / "pipelines" / "ml-100k.toml"
    offline = {
        "RECSPARSE_CACHE": str(tmp_path / "cache"), "http_proxy": NOWHERE, "https_proxy": NOWHERE, "no_proxy": "",
        "PIP_INDEX_URL": f"{NOWHERE}/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "",
    }  # fmt: skip
    command = [sys.executable, "-m", "recsparse", "run", str(pipeline), "-o", str(tmp_path / "run")]
    found = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | offline)
    *log, sentence = found.stderr.splitlines()
    assert found.returncode == 1
    assert sentence.startswith("Error: ml-100k could not be fetched.")
    assert "--from PATH" in sentence
    assert "Traceback" not in found.stderr
    assert any("fetch ml-100k" in line for line in log)
    assert {file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()} <= {".ml-100k.lock"}
    assert everything(tmp_path / "run") == [".lock"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here ({mounted.stderr.strip()}); it takes root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("stage", ["build", "split", "train", "evaluate", "score", "stats", "synth"])
def test_a_full_disk(refused, stage, small_disk, csv, dataset, parts, model):
    (small_disk / "filler").write_bytes(b"\0" * (60 << 10))
    out = small_disk / "out"
    words = {
        "build": ("build", csv, "--value", "rating", "-o", out),
        "split": ("split", dataset, "-o", out),
        "train": ("train", parts, "-o", out),
        "evaluate": ("evaluate", model, parts, "-o", out / "users.parquet"),
        "score": ("score", model, "-o", out, "--top", 30, "--keep-seen"),
        "stats": ("data", "stats", dataset, "-o", out / "stats.html"),
        "synth": ("data", "synth", "-o", out, "--users", 200, "--items", 400, "--interactions", 5000),
    }
    assert "No space left on device" in refused(*words[stage])
    left = {file.name for file in small_disk.rglob("*") if file.is_file()}
    assert left <= {"filler", "_lock", "_manifest.json"}  # what makes a scoring job go on where it was


def test_a_full_disk_leaves_what_was_there(refused, small_disk, csv, dataset):
    from recsparse.interactions import read

    data = shutil.copytree(dataset, small_disk / "data")
    before = read(data)
    words = ("--value", "rating", "--time", "time")
    assert "No space left on device" in refused("build", csv, "-o", data, *words, "--append")
    assert "No space left on device" in refused("build", csv, "-o", data, *words, "--overwrite")
    assert (read(data).matrix != before.matrix).nnz == 0
    assert everything(small_disk) == sorted(["data", *(f"data/{name}" for name in everything(dataset))])

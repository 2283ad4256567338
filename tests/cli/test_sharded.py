"""``plan`` and sharded ``train`` through the entry point; training with real processes."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from recsparse.distributed import PlannedTable, plan
from recsparse.distributed import require as required
from recsparse.distributed.config import Budget
from recsparse.interactions import read_split
from recsparse.sparsity import Recipe
from recsparse.tables import load_table

needs_torchrec = pytest.mark.skipif(find_spec("torchrec") is None, reason="the extra `torchrec` is for Linux")
ROWS = '{"density": 0.1, "granularity": "row"}'
SHARDED = Path(__file__).parents[2] / "pipelines" / "cluster" / "sharded.toml"
SMALL = ("--set", "dim=8", "--set", "epochs=2", "--set", "batch_size=64", "--set", "streams=4")


@needs_torchrec
def test_plan_answers_what_python_does(say, parts, tmp_path):
    file = tmp_path / "tables.toml"
    file.write_text(
        '[[tables]]\nname = "users"\nrows = 1000000\ndim = 64\nbudget = { rows = 100000 }\n'
        '[[tables]]\nname = "items"\nrows = 50000\ndim = 64\nlookups = 2.0\n'
    )
    words = ("plan", "--tables", file, "--world-size", 2, "--device-memory", "64MiB", "--recipe", ROWS)
    said = say(*words, "--json")
    assert said.code == 0, said.err
    tables = [
        PlannedTable("users", 1_000_000, 64, budget=Budget(rows=100_000)),
        PlannedTable("items", 50_000, 64, lookups=2.0, recipe=Recipe.parse(json.loads(ROWS))),
    ]
    expected = plan(tables, world_size=2, device_memory=64 << 20, optimiser="sgd", batch_size=4096)
    found = json.loads(said.out)
    assert found["served"] == expected.served
    assert not found["dense"]["fits"]
    assert found["sparse"]["fits"]
    assert found["sparse"]["bytes_per_device"] == expected.sparse.bytes_per_device
    assert found["dense"]["smallest"] == expected.dense.smallest > 2
    text = say(*words).out
    assert "dense does not fit: 268,800,000 bytes" in text
    assert all(word in text for word in ("sharding of users", "fullest device in training", "fewest devices"))
    said = json.loads(say("plan", "--dataset", parts, "--set", "dim=8", "--json").out)
    assert set(said["served"]) == {"user_table", "item_table"}
    assert said["served_dense"]["item_table"] == 30 * 8 * 4


@needs_torchrec
def test_plan_says_what_it_cannot_use(refused, parts, tmp_path):
    assert "one of them" in refused("plan")
    assert "write JSON" in refused("plan", "--dataset", parts, "--recipe", "density=0.1")
    assert "is not a size" in refused("plan", "--dataset", parts, "--device-memory", "lots")
    assert "cannot be read" in refused("plan", "--tables", tmp_path / "none.toml")
    file = tmp_path / "tables.json"
    file.write_text('{"tables": [{"name": "a", "rows": 5}]}')
    assert "dim: this key is required" in refused("plan", "--tables", file)
    file.write_text('{"tables": [{"name": "a", "rows": 5, "dim": 4, "colour": 1}]}')
    assert "colour" in refused("plan", "--tables", file)


def test_without_torchrec_the_command_says_how_to_get_it(refused, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(required, "find_spec", lambda name: None)
    for words in (("plan", "--dataset", parts), ("train", parts, "-o", tmp_path / "run", "--ranks", 2)):
        assert "pip install packaging/fbgemm-gpu 'recsparse[torchrec]'" in refused(*words)


def test_sharded_training_refuses_before_anything_starts(refused, parts, tmp_path):
    words = ("train", parts, "-o", tmp_path / "run", "--ranks", 2)
    assert "sharded training knows mf" in refused(*words, "--kind", "ease")
    assert "choose another one" in refused(*words, "--overwrite")
    assert "there is no such key" in refused(*words, "--set", "colour=1")
    assert "stand on the command line" in refused(*words, "--set", "data=1")
    assert not (tmp_path / "run").exists()


@needs_torchrec
def test_train_on_two_ranks_by_the_file_to_copy(say, parts, tmp_path):
    words = ("train", parts, "-o", tmp_path / "run", "--ranks", 2, "--settings", SHARDED)
    said = say(*words, *SMALL, "--set", "items.recipe.density=0.25", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found["ranks"] == 2
    items = load_table(tmp_path / "run" / "item_table")
    assert items.value_type == "int8"
    assert np.count_nonzero(items.to_dense()) <= 0.25 * items.shape[0] * 8
    found_progress = said.err
    assert json.loads((tmp_path / "run" / "training.json").read_text())["loss"] == found["loss"]
    said = say("evaluate", tmp_path / "run", parts, "--on", "validation", "--metric", "ndcg@20", "--json")
    evaluated = json.loads(said.out)["ndcg@20"]
    assert evaluated["users"] == read_split(parts).validation.target.shape[0]
    assert evaluated["mean"] == pytest.approx(
        found["ndcg@20"], abs=0.05
    )  # of the table in int8; its users are folded in
    assert "train mf epoch 2: ndcg@20" in found_progress


@pytest.mark.slow
@needs_torchrec
def test_torchrun_does_the_same(say, refused, parts, tmp_path):
    found = json.loads(say("train", parts, "-o", tmp_path / "run", "--ranks", 2, *SMALL, "--json").out)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "recsparse", "train", str(parts), "-o", str(tmp_path / "again"), *SMALL, "--json"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    made = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=200)
    again = json.loads(made.stdout)  # one line, of rank 0
    assert again["loss"] == found["loss"]
    refusal = refused("train", parts, "-o", tmp_path / "run", "--ranks", 1, "--restarts", 0, *SMALL, "--set", "reg=1")
    assert "Training on 1 ranks failed: rank 0" in refusal
    assert "choose another output directory" in refusal

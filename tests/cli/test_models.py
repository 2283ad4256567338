import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from recsparse.evaluation import Evaluation
from recsparse.interactions import read, read_split
from recsparse.models import IALS, Recommender


def test_train_saves_what_python_would(say, parts, tmp_path):
    words = ("--set", "dim=4", "--set", "epochs=2", "--set", "recipe.density=0.5", "--set", "value_type=int8")
    said = say("train", parts, "-o", tmp_path / "model", *words, "--json")
    assert said.code == 0, said.err
    expected = IALS(dim=4, epochs=2, recipe={"density": 0.5}, value_type="int8").fit(read(parts / "train"))
    made = Recommender.load(tmp_path / "model")
    assert (made.item_table_.to_dense() == expected.item_table_.to_dense()).all()
    stored = sum(tensor.nbytes for tensor in load_file(tmp_path / "model" / "item_table.safetensors").values())
    answer = json.loads(said.out)
    assert answer["bytes"] == stored
    assert sum(size for name, size in answer.items() if name.startswith("bytes of ")) == stored


def test_evaluate_test_and_validation(say, model, parts, tmp_path):
    said = say("evaluate", model, parts, "--metric", "ndcg@10", "-o", tmp_path / "users.parquet", "--json")
    found = json.loads(said.out)["ndcg@10"]
    per_user = Evaluation.load(tmp_path / "users.parquet")
    assert found["mean"] == pytest.approx(np.nanmean(per_user.values("ndcg@10")))
    assert per_user.role == "test"
    assert found["low"] < found["mean"] < found["high"]
    assert found["users"] == read_split(parts).test.target.shape[0]
    said = say("evaluate", model, parts, "--on", "validation")
    assert f"{read_split(parts).validation.target.shape[0]} users" in said.out


def test_inspect(say, model):
    said = json.loads(say("inspect", model, "--json").out)
    assert said["entries"] == np.count_nonzero(Recommender.load(model).item_table_.to_dense())
    assert sum(said["breakdown"].values()) == said["nbytes"] >= said["ideal_bytes"]
    assert said["layouts"][said["layout"]] == said["nbytes"]
    assert said == json.loads(say("inspect", model / "item_table.safetensors", "--json").out)
    text = say("inspect", model).out
    assert all(layout in text for layout in ("bitmap", "csr", "dense"))

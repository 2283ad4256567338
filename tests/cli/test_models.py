import errno
import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from recsparse.cli import console
from recsparse.evaluation import Evaluation
from recsparse.files import atomic_file
from recsparse.interactions import read, read_split
from recsparse.models import IALS, Recommender, checkpoint
from recsparse.tables import pack, save_table


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


def test_inspect_a_directory_of_shards_and_a_table_of_nothing(say, model, tmp_path):
    table = Recommender.load(model).item_table_
    save_table(table, tmp_path / "shards", shard_bytes=table.nbytes // 3)
    said = json.loads(say("inspect", tmp_path / "shards", "--json").out)
    assert said["shape"] == list(table.shape)
    assert sum(part["nbytes"] for part in said["parts"].values()) == said["nbytes"]
    assert f"{table.shape[0]}" in say("inspect", tmp_path / "shards").out
    save_table(pack(np.zeros((0, 8), dtype=np.float32), layout="dense"), tmp_path / "nothing")
    assert "Infinity" not in (said := say("inspect", tmp_path / "nothing", "--json")).out
    assert json.loads(said.out)["ratio"] == 1


def test_train_stops_early_by_the_validation_users(say, refused, dataset, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(console, "NEWS_SECONDS", 0.0)
    words = ("--set", "dim=16", "--set", "epochs=40", "--set", "alpha0=0.01", "--set", "reg=0.0001")
    said = say("train", parts, "-o", tmp_path / "model", *words, "--set", "patience=2", "--json")
    assert said.code == 0, said.err
    split = read_split(parts)
    expected = IALS(dim=16, epochs=40, alpha0=0.01, reg=0.0001, patience=2)
    expected.fit(split.train, validation=split.validation)
    assert expected.epochs_ < 40
    made = Recommender.load(tmp_path / "model")
    assert (made.item_table_.to_dense() == expected.item_table_.to_dense()).all()
    assert made.epochs == json.loads(said.out)["epochs"] == expected.best_epoch_
    assert f"ndcg@20 {expected.validation_[0]:.4f}" in said.err
    sentence = refused("train", dataset, "-o", tmp_path / "other", "--set", "patience=2")
    assert "needs validation users" in sentence


@pytest.mark.parametrize("kind", ["ials", "low-rank-ials", "mf"])
def test_train_goes_on_from_a_checkpoint(say, kind, parts, tmp_path, monkeypatch):
    command = ("train", parts, "--kind", kind, "--set", "dim=4", "--set", "epochs=6", "--set", "n_jobs=1")
    assert say(*command, "-o", tmp_path / "whole").code == 0
    asked = (*command, "-o", tmp_path / "model", "--checkpoint", tmp_path / "checkpoint")
    write, written = atomic_file, []

    def die_at_the_third(path):
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path)

    monkeypatch.setattr(checkpoint, "atomic_file", die_at_the_third)
    assert say(*asked).code == 1
    assert not (tmp_path / "model").exists()
    assert say(*asked).code == 0
    assert len(written) == 3 + 4
    found, wanted = (Recommender.load(tmp_path / name).item_table_.to_dense() for name in ("model", "whole"))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("mf", ("loss=squared", "learning_rate=1e20")), ("ials", ("solver=cg", "init_std=1e25"))],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_training_that_diverges_leaves_its_model_and_fails(refused, kind, settings, parts, tmp_path):
    words = ("--kind", kind, "--set", "dim=4", *(word for each in settings for word in ("--set", each)))
    sentence = refused("train", parts, "-o", tmp_path / "model", *words)
    assert "diverged in epoch 1" in sentence
    assert "the model keeps epoch 0" in sentence
    assert sentence.endswith(f"It is saved in {tmp_path / 'model'}.")
    kept = Recommender.load(tmp_path / "model")
    assert kept.kind == kind
    assert np.isfinite(kept.item_table_.to_dense()).all()


def test_a_checkpoint_needs_epochs(refused, parts, tmp_path):
    asked = ("train", parts, "-o", tmp_path / "model", "--checkpoint", tmp_path / "c")
    assert "ease is not trained in epochs" in refused(*asked, "--kind", "ease")
    assert "leave --checkpoint out" in refused(*asked, "--ranks", "2")


def test_ratings_are_predicted_and_measured(say, refused, model, parts, tmp_path):
    asked = ("train", parts, "-o", tmp_path / "rated", "--kind", "biased-mf", "--set", "dim=2")
    assert say(*asked).code == 0
    found = json.loads(say("evaluate", tmp_path / "rated", parts, "--ratings", "--json").out)
    test, rated = read_split(parts).test, Recommender.load(tmp_path / "rated")
    predicted = rated.scores(rated.queries(test.history))
    user, item = test.target.matrix.nonzero()
    errors = predicted[user, item] - test.target.matrix.data
    assert found["rmse"] == pytest.approx(float(np.sqrt((errors**2).mean())), rel=1e-5)
    assert found["mae"] == pytest.approx(float(np.abs(errors).mean()), rel=1e-5)
    assert found["ratings"] == test.target.nnz
    assert "scores are no ratings" in refused("evaluate", model, parts, "--ratings")
    assert "--metric" in refused("evaluate", tmp_path / "rated", parts, "--ratings", "--metric", "ndcg@5")

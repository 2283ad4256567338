import json

import pytest

pytest.importorskip("optuna")


def test_tune_finds_settings_that_train_takes(say, parts, tmp_path):
    words = ("-o", tmp_path / "tuned", "--kind", "ease", "--metric", "recall@10", "--search", "reg=[1.0, 100.0]")
    said = say("tune", parts, *words, "--trials", 2, "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert found == json.loads((tmp_path / "tuned" / "best.json").read_text())
    assert found["params"]["reg"] in (1.0, 100.0)
    again = say("tune", parts, *words, "--trials", 3)
    assert "best of 3 trials" in again.out
    said = say("train", parts, "-o", tmp_path / "model", "--kind", "ease", "--set", f"reg={found['params']['reg']}")
    assert said.code == 0, said.err


def test_a_wrong_search_is_one_sentence(refused, parts, tmp_path):
    said = refused("tune", parts, "-o", tmp_path / "tuned", "--search", "reg")
    assert said == "--search is 'reg'; it must be NAME=VALUE, for example dim=64."
    assert "reg" in refused("tune", parts, "-o", tmp_path / "tuned", "--search", 'reg={"low":2,"high":1}')
    assert not (tmp_path / "tuned").exists()


def test_settings_within_settings_are_fixed_as_train_takes_them(say, parts, tmp_path):
    words = ("--kind", "ials", "--set", "dim=4", "--set", "epochs=2", "--set", "recipe.density=0.5")
    said = say("tune", parts, "-o", tmp_path / "tuned", *words, "--trials", 1, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["params"]["recipe"] == {"density": 0.5}

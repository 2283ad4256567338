import json
import os
import shutil
import tomllib

import numpy as np
import pytest

from recsparse.config import RunConfig
from recsparse.errors import ConfigError, DataError
from recsparse.interactions import read_split
from recsparse.pipeline import Run
from recsparse.pipeline.rows import make, trainings
from recsparse.pipeline.stages import STAMP, alone
from recsparse.tables import pack, save_table

FINAL = {"results.json", "report.html", STAMP}


def times(directory):
    """Every file with what changes when it is written again."""
    files = (file for file in directory.rglob("*") if file.is_file())
    return {str(file.relative_to(directory)): (file.stat().st_mtime_ns, file.stat().st_ino) for file in files}


def written(before, after, *, at=2):
    """The directories, ``at`` levels deep, whose files are not those of before."""
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {"/".join(name.split("/")[:at]) for name in changed}


def figures(results):
    """All that a run found, without what it took."""
    rows = [{key: value for key, value in row.items() if key != "cost"} for row in results["rows"]]
    return rows, results["comparisons"], results["dataset"], results["split"]


def read(directory):
    return json.loads((directory / "results.json").read_text())


def test_everything_is_there(finished, results):
    names = {file.name for file in finished.iterdir()}
    assert {"data", "split", "models", "evaluations", "recommendations", "audit"} <= names
    assert {"results.json", "report.html"} <= names
    assert [row["label"] for row in results["rows"]] == [
        "Popularity", "EASE", "iALS 8", "iALS 8 int8", "iALS 8 element 2"
    ]  # fmt: skip
    assert results["dataset"]["name"] == "tiny"
    assert results["seconds"] > 0


def test_a_budget_in_bytes_is_of_each_value_type(text, finished):
    parts = read_split(finished / "split")
    asked = {"kind": "ials", "value_types": ["fp32", "int4"], "params": {"dim": 8, "recipe": {"bytes": 180}}}
    config = RunConfig.model_validate(tomllib.loads(text) | {"models": [asked]})
    for each, value_type in zip(trainings(config), ("fp32", "int4"), strict=True):
        assert each.value_types == (value_type,)
        table = make(each.kind, each.params).fit(parts.train).repack(value_type).item_table_
        assert 150 < table.nbytes <= 180


def test_patience_stops_a_training_by_the_headline_metric(text, finished, tmp_path):
    parts = read_split(finished / "split")
    params = "dim = 16, epochs = 40, patience = 2, alpha0 = 0.01, reg = 0.0001"
    config = RunConfig.model_validate(tomllib.loads(text.replace("dim = 8, epochs = 3 }", f"{params} }}", 1)))
    told = []
    run = Run(config, directory=tmp_path, progress=lambda stage, done, total: told.append(stage))
    run.parts = parts
    asked = next(each for each in run.trainings if each.params.get("patience"))
    model = run._fit(asked, tmp_path, asked.params)
    assert model.epochs == model.best_epoch_ < 38
    assert model.metric == config.evaluation.headline
    assert told[0] == f"train iALS 16: epoch 1, {model.metric} {model.validation_[0]:.4f}"
    plain = make("ials", asked.params | {"epochs": model.epochs}).fit(parts.train)
    assert (plain.item_table_.to_dense() == model.item_table_.to_dense()).all()


def test_a_second_run_does_nothing(copy, rerun):
    before, was = times(copy), read(copy)
    results = rerun(copy)
    assert written(before, times(copy)) == set()
    assert read(copy) == was
    assert [row.label for row in results.rows] == [row["label"] for row in was["rows"]]


def test_another_setting_redoes_its_own_row_only(copy, rerun):
    before, was = times(copy), read(copy)
    rerun(copy, lambda text: text.replace("recipe = { density = 0.25 }", "reg = 0.1, recipe = { density = 0.25 }"))
    slug = "ials-8-element-2"
    whole = ("audit", "effects", "recommendations")
    redone = {name for name in written(before, times(copy)) if name.split("/")[0] not in whole}
    assert redone - {"report.md"} == {f"models/{slug}", f"evaluations/{slug}"} | FINAL
    now = read(copy)
    same = [old["metrics"] == new["metrics"] for old, new in zip(was["rows"], now["rows"], strict=True)]
    assert same == [True, True, True, True, False]


def test_another_seed_of_the_split_keeps_the_matrix(copy, rerun):
    before = times(copy)
    rerun(copy, lambda text: text.replace("seed = 1", "seed = 2"))
    redone = written(before, times(copy), at=1)
    assert "data" not in redone
    assert {"split", "models", "evaluations", "audit"} <= redone


def test_more_data_redo_everything(copy, tmp_path, csv, rerun):
    other = shutil.copy(csv, tmp_path / "ratings.csv")
    change = lambda text: text.replace(str(csv), str(other))  # noqa: E731
    rerun(copy, change)
    before = times(copy)
    with other.open("a") as file:
        file.write("u1,99,5,1600000000\n")
    assert rerun(copy, change).dataset.items == read(copy)["dataset"]["items"] == 41
    assert {"data", "split", "models", "evaluations"} <= written(before, times(copy), at=1)


def test_what_is_measured_is_what_lies_on_disk(copy, rerun):
    label, slug = "iALS 8", "ials-8"
    was = next(row for row in read(copy)["rows"] if row["label"] == label)
    empty = np.zeros((read(copy)["dataset"]["items"], 8))
    save_table(pack(empty), copy / "models" / slug / "item_table.safetensors")
    (copy / "evaluations" / slug / STAMP).unlink()
    (copy / STAMP).unlink()
    now = next(row for row in rerun(copy).rows if row.label == label)
    assert now.metrics["ndcg@20"].mean < was["metrics"]["ndcg@20"]["mean"]
    assert now.bytes_total < was["bytes_total"]


def test_what_was_deleted_is_made_again(copy, rerun, finished):
    shutil.rmtree(copy / "recommendations")
    shutil.rmtree(copy / "models" / "ials-8")
    (copy / "split" / STAMP).write_text("not JSON")
    rerun(copy)
    assert figures(read(copy)) == figures(read(finished))
    assert (copy / "recommendations" / "_SUCCESS").exists()


def test_leftovers_of_a_killed_run_are_removed(copy, rerun):
    for leftover in (copy / ".data.partial-1-abcd", copy / "models" / ".ials-8.partial-2-abcd"):
        leftover.mkdir()
        (leftover / "file").touch()
    (copy / ".results.json.partial-3-abcd").touch()
    rerun(copy)
    assert not list(copy.rglob(".*partial*"))


def test_two_runs_in_one_directory(copy, rerun):
    with alone(copy), pytest.raises(DataError, match="Another process is running in"):
        rerun(copy)


def test_the_plan(copy, tmp_path, text):
    def plan(directory, text=text):
        (tmp_path / "tiny.toml").write_text(text)
        return {stage.name: done for stage, done in Run.read(tmp_path / "tiny.toml", directory=directory).plan()}

    before = times(copy)
    assert set(plan(copy).values()) == {True}
    assert set(plan(tmp_path / "new").values()) == {False}
    assert not (tmp_path / "new").exists()
    changed = plan(copy, text.replace("tune.reg = [10, 100]", "tune.reg = [10]"))
    assert [name for name, done in changed.items() if not done] == [
        "train EASE", "evaluate EASE", "recommend", "audit", "report"
    ]  # fmt: skip
    assert times(copy) == before


def test_the_plan_of_data_that_are_not_here(tmp_path, text, monkeypatch):
    monkeypatch.setenv("RECSPARSE_CACHE", str(tmp_path / "cache"))
    head, _, tail = text.partition("[data.source.ratings]")
    (tmp_path / "card.toml").write_text(f'{head}[data]\nsource = "ml-100k"\n[split]{tail.partition("[split]")[2]}')
    plan = Run.read(tmp_path / "card.toml", directory=tmp_path / "run").plan()
    assert [stage.name for stage, _ in plan][:2] == ["fetch ml-100k", "build"]
    assert not any(done for _, done in plan)
    assert os.listdir(tmp_path) == ["card.toml"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("dim = 8, epochs = 3 }", "dmi = 8, epochs = 3 }", "models.2.params: dmi: there is no such key; allowed are"),
        (
            "dim = 8, epochs = 3 }",
            'dim = "8" }',
            "models.2.params: dim: '8' is not allowed: input should be a valid int",
        ),
        (
            "density = 0.25",
            "density = 2.5",
            "models.3.params.recipe: density: 2.5 is not allowed: input should be less",
        ),
        ("density = 0.25", "denisty = 0.25", "models.3.params.recipe: denisty: there is no such key; allowed are"),
        ("tune.reg = [10, 100]", "tune.reg = [10, true]", "models.1.params: reg: True is not allowed"),
        ('kind = "ease"', 'kind = "popularity"', "models.1.params: reg: there is no such key"),
        ('"int8"', '"fp32"', "models: two rows would be called 'iALS 8'"),
        ("tune.reg = [10, 100]", 'value_types = ["int8"]', "models.1.value_types"),
    ],
)
def test_settings_of_models_are_checked_before_anything_runs(tmp_path, text, old, new, expected):
    file = tmp_path / "tiny.toml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        Run.read(file, directory=tmp_path / "run")
    assert str(error.value).startswith(f"{file}: {expected}")
    assert not (tmp_path / "run").exists()


def test_an_impossible_value_is_named_with_its_file(tmp_path, rerun):
    with pytest.raises(
        ConfigError, match=r"tiny\.toml: models\.2: alpha0 is -1.0; it must be a finite number of at least 0"
    ):
        rerun(tmp_path / "run", lambda text: text.replace("dim = 8,", "dim = 8, alpha0 = -1,", 1))


def test_a_pipeline_without_a_table(tmp_path, text):
    (tmp_path / "tiny.toml").write_text(text.partition('[[models]]\nkind = "ials"')[0])
    with pytest.raises(ConfigError, match=r"models: none of them has an embedding table"):
        Run.read(tmp_path / "tiny.toml")

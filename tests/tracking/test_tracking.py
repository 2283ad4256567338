"""Figures come back from the trackers' own local stores; nothing is kept unless asked for."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from recsparse.errors import ConfigError
from recsparse.interactions import Interactions, split
from recsparse.models import IALS
from recsparse.pipeline import Run
from recsparse.pipeline import track as stage
from recsparse.tracking import MLflow, TensorBoard

if find_spec("mlflow") is None or find_spec("tensorboard") is None:
    pytest.skip("MLflow and TensorBoard are not installed (the extra `tracking`)", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::UserWarning")

PIPELINE = """
name = "tracked"
[data.source.ratings]
path = "ratings.csv"
[split]
options = { validation = 0.2, test = 0.3 }
[evaluation]
few_shot = [1, 2]
effects = false
[[models]]
kind = "popularity"
[[models]]
kind = "ials"
params = { dim = 4, epochs = 2, recipe = { density = 0.5 } }
[tracking]
mlflow = "sqlite:///mlflow.db"
tensorboard = "events"
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def frame() -> pd.DataFrame:
    pairs = [(user, item) for user in range(60) for item in range(20) if (user * 7 + item * 3) % 5 < 2]
    return pd.DataFrame(pairs, columns=["user_id", "item_id"])


def mlflow_runs(experiment: str) -> dict:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri="sqlite:///mlflow.db")
    found = client.get_experiment_by_name(experiment)
    return {run.info.run_name: (client, run) for run in client.search_runs([found.experiment_id])}


def events(directory: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(directory))
    read.Reload()
    return {name: [(event.step, event.value) for event in read.Scalars(name)] for name in read.Tags()["scalars"]}


def test_epochs_of_a_training_come_back_from_both(frame: pd.DataFrame, folder: Path) -> None:
    parts = split(Interactions.from_frame(frame), "strong", validation=0.2, test=0.2)
    model = IALS(dim=4, epochs=3, recipe={"density": 0.5}, random_state=0)
    plain = IALS(dim=4, epochs=3, recipe={"density": 0.5}, random_state=0).fit(parts.train, validation=parts.validation)
    with MLflow("one", model.get_params(), uri="sqlite:///mlflow.db", experiment="epochs") as flow:
        with TensorBoard("events/one", model.get_params()) as board:

            def both(epoch: int, metric: float | None) -> None:
                flow(epoch, metric)
                board(epoch, metric)

            model.fit(parts.train, validation=parts.validation, on_epoch=both)
        flow.log({"ndcg@20": 0.5})
    assert model.validation_ == plain.validation_  # looking on changes nothing
    client, run = mlflow_runs("epochs")["one"]
    history = client.get_metric_history(run.info.run_id, "validation")
    assert [(each.step, each.value) for each in history] == list(enumerate(model.validation_, 1))
    assert run.data.params["recipe.density"] == "0.5"
    assert run.data.metrics["ndcg_at_20"] == 0.5
    assert run.info.status == "FINISHED"
    found = events(folder / "events" / "one")
    assert found["validation"] == [(n, pytest.approx(value)) for n, value in enumerate(model.validation_, 1)]
    assert [step for step, _ in found["seconds"]] == [1, 2, 3]


def test_a_training_that_fails_is_kept_as_failed() -> None:
    with pytest.raises(ValueError, match="boom"), MLflow("bad", uri="sqlite:///mlflow.db"):
        raise ValueError("boom")
    assert mlflow_runs("recsparse")["bad"][1].info.status == "FAILED"


def test_a_store_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="'gopher://x'"):
        MLflow("bad", uri="gopher://x")


def test_a_pipeline_keeps_every_row_once(frame: pd.DataFrame, folder: Path) -> None:
    frame.to_csv("ratings.csv", index=False)
    (folder / "tracked.toml").write_text(PIPELINE)
    results = Run.read(folder / "tracked.toml")()
    runs = mlflow_runs("tracked")
    assert set(runs) == {row.label for row in results.rows}
    assert sum(run.data.tags["ship"] == "true" for _, run in runs.values()) == 1
    for row in results.rows:
        figures, told = runs[row.label][1].data, events(folder / "events/tracked" / row.label.replace(" ", "-"))
        assert figures.metrics["test/ndcg_at_20"] == row.metrics["ndcg@20"].mean
        assert told["test/ndcg@20"] == [(0, pytest.approx(row.metrics["ndcg@20"].mean))]
        assert [step for step, _ in told["few-shot/ndcg@20"]] == [1, 2]
        assert figures.metrics.get("bytes") == row.bytes_total
    assert all(done for _, done in Run.read(folder / "tracked.toml").plan())
    Run.read(folder / "tracked.toml")()
    _, run = runs["Popularity"]
    client = runs["Popularity"][0]
    assert len(client.search_runs([run.info.experiment_id])) == len(results.rows)
    # Without the section nothing is redone and nothing is told.
    (folder / "tracked.toml").write_text(PIPELINE.partition("[tracking]")[0])
    assert [found.name for found, done in Run.read(folder / "tracked.toml").plan() if not done] == []


def test_a_stage_that_was_killed_leaves_nothing_twice(
    frame: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame.to_csv("ratings.csv", index=False)
    (folder / "tracked.toml").write_text(PIPELINE.replace('"tracked"', '"killed"'))
    log, calls = MLflow.log, []

    def killed(self: MLflow, figures: dict[str, float], step: int = 0) -> None:
        calls.append(step)
        if len(calls) == 5:  # in the curve of the second of two rows
            raise KeyboardInterrupt
        log(self, figures, step)

    monkeypatch.setattr(MLflow, "log", killed)
    with pytest.raises(KeyboardInterrupt):
        Run.read(folder / "tracked.toml")()
    monkeypatch.setattr(MLflow, "log", log)
    results = Run.read(folder / "tracked.toml")()
    runs = mlflow_runs("killed")
    assert set(runs) == {row.label for row in results.rows}
    client, run = next(iter(runs.values()))
    found = client.search_runs([run.info.experiment_id])
    assert [each.info.status for each in found] == ["FINISHED"] * len(results.rows)
    for row in results.rows:
        told = events(folder / "events/killed" / row.label.replace(" ", "-"))
        assert [step for step, _ in told["few-shot/ndcg@20"]] == [1, 2]
        assert len(told["test/ndcg@20"]) == 1


def test_a_tracker_that_is_not_installed_is_refused_before_anything_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tracked.toml").write_text(PIPELINE)
    monkeypatch.setattr(stage, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"tracking.mlflow: .*recsparse\[tracking\]"):
        Run.read(folder / "tracked.toml")
    assert [path.name for path in folder.iterdir()] == ["tracked.toml"]


def test_neither_is_imported_unless_asked_for() -> None:
    code = "import sys, recsparse.tracking, recsparse.pipeline; print(*sys.modules)"
    root = Path(stage.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert not {"mlflow", "tensorboard"} & set(done.stdout.split())

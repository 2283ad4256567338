import json
import shutil
import tomllib

import numpy as np
import pandas as pd
import pytest

from recsparse.pipeline import Run

PIPELINE = """
name = "tiny"

[data.source.ratings]
path = "{csv}"
value = "rating"
time = "time"

[split]
seed = 1
options = {{ validation = 0.2, test = 0.3 }}

[recommendations]
top = 7

[[models]]
kind = "popularity"

[[models]]
kind = "ease"
tune.reg = [10, 100]

[[models]]
kind = "ials"
params = {{ dim = 8, epochs = 3 }}
value_types = ["fp32", "int8"]

[[models]]
kind = "ials"
params = {{ dim = 8, epochs = 3, recipe = {{ density = 0.25 }} }}
"""


@pytest.fixture(scope="session")
def csv(tmp_path_factory):
    """Two tastes: user_id (text), item_id, rating, time."""
    rng = np.random.default_rng(0)
    side = np.arange(80)[:, None] % 2 == np.arange(40)[None, :] % 2
    user, item = np.nonzero(rng.random(side.shape) < np.where(side, 0.4, 0.08))
    frame = pd.DataFrame({"user_id": user, "item_id": item * 10 + 7, "rating": rng.integers(1, 6, len(user))})
    frame["user_id"] = "u" + frame["user_id"].astype(str)
    frame["time"] = 1_600_000_000 + rng.integers(0, 10**6, len(user))
    file = tmp_path_factory.mktemp("csv") / "ratings.csv"
    frame.to_csv(file, index=False)
    return file


@pytest.fixture(scope="session")
def text(csv):
    """A pipeline file's text."""
    return PIPELINE.format(csv=csv)


@pytest.fixture(scope="session")
def finished(text, tmp_path_factory):
    """The directory of a run that nobody changes."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(text)
    Run.read(folder / "tiny.toml", directory=folder / "run")()
    return folder / "run"


@pytest.fixture
def copy(finished, tmp_path):
    """A finished run to change, with the times of its files."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def rerun(tmp_path, text):
    """Run the pipeline, its text changed, into a directory."""

    def run(directory, change=lambda text: text):
        file = tmp_path / "tiny.toml"
        file.write_text(change(text))
        tomllib.loads(file.read_text())
        return Run.read(file, directory=directory)()

    return run


@pytest.fixture(scope="session")
def results(finished):
    return json.loads((finished / "results.json").read_text())


@pytest.fixture(scope="session")
def shipped(finished, results):
    """The row of the shipped table in results.json."""
    label = json.loads((finished / "audit" / "model.json").read_text())["label"]
    return next(row for row in results["rows"] if row["label"] == label)

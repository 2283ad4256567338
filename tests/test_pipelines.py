"""The pipeline files are right, and run: on little data in the very files that their cards describe."""

import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from recsparse.config import RunConfig, read_config
from recsparse.interactions import Interactions
from recsparse.models import IALS
from recsparse.pipeline import Run
from recsparse.pipeline.rows import trainings

PIPELINES = Path(__file__).parents[1] / "pipelines"
FILES = sorted(PIPELINES.glob("*.toml"))
USERS, ITEMS = 90, 40


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    """Two tastes; user and item from 1, rating, time."""
    rng = np.random.default_rng(0)
    side = np.arange(USERS)[:, None] % 2 == np.arange(ITEMS)[None, :] % 2
    user, item = np.nonzero(rng.random(side.shape) < np.where(side, 0.5, 0.1))
    times = 1_600_000_000 + rng.integers(0, 10**6, len(user))
    return pd.DataFrame({"user": user + 1, "item": item + 1, "rating": 6 + item % 2, "time": times})


def lines(file: Path, frame: pd.DataFrame, separator: str) -> None:
    rows = (separator.join(map(str, row)) for row in frame.itertuples(index=False))
    file.write_text("\n".join(rows) + "\n")


def movies(separator: str) -> pd.DataFrame:
    genres = [separator.join(["Drama", "War"][: 1 + item % 2]) for item in range(ITEMS)]
    return pd.DataFrame({"item": range(1, ITEMS + 1), "title": "A film", "genres": genres})


def ml_1m(folder: Path, pairs: pd.DataFrame) -> None:
    lines(folder / "ratings.dat", pairs, "::")
    lines(folder / "movies.dat", movies("|"), "::")
    people = pd.DataFrame({"user": range(1, USERS + 1), "gender": "F", "age": 25, "occupation": 3, "zip": "00001"})
    lines(folder / "users.dat", people, "::")


def movietweetings(folder: Path, pairs: pd.DataFrame) -> None:
    lines(folder / "ratings.dat", pairs, "::")
    lines(folder / "movies.dat", movies("|"), "::")


def gowalla(folder: Path, pairs: pd.DataFrame) -> None:
    every = pairs.groupby("user")["item"].agg(list)
    for name, part in (("train.txt", slice(None, -1)), ("test.txt", slice(-1, None))):
        text = (" ".join(map(str, [user, *items[part]])) for user, items in every.items())
        (folder / name).write_text("\n".join(text) + "\n")


def complete_journey(folder: Path, pairs: pd.DataFrame) -> None:
    lines_bought = pairs.rename(columns={"user": "household_id", "item": "product_id"})
    lines_bought["transaction_timestamp"] = pd.to_datetime(lines_bought.pop("time"), unit="s")
    pd.concat([lines_bought, lines_bought[::3]]).to_parquet(folder / "transactions.parquet", index=False)
    about = {"department": "GROCERY", "brand": "Private", "product_category": "MILK", "product_type": "WHOLE"}
    pd.DataFrame({"product_id": range(1, ITEMS + 1), **about}).to_parquet(folder / "products.parquet", index=False)
    home = {"age": "25-34", "income": "35-49K", "home_ownership": None, "household_size": "2", "kids_count": "0"}
    pd.DataFrame({"household_id": range(1, USERS + 1), **home}).to_parquet(folder / "demographics.parquet", index=False)


def ml_100k(folder: Path, pairs: pd.DataFrame) -> None:
    columns = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    pairs.set_axis(columns, axis=1).to_csv(folder / "ml-100k.inter", sep="\t", index=False)
    films = movies(" ")
    films.insert(2, "year", 1990 + films["item"] % 9)
    films.to_csv(folder / "ml-100k.item", sep="\t", index=False)
    people = pd.DataFrame({"user": range(1, USERS + 1), "age": 25, "gender": "F", "occupation": "other", "zip": "a1"})
    people["gender"] = np.where(people["user"] % 2, "F", "M")
    people.to_csv(folder / "ml-100k.user", sep="\t", index=False)


WRITERS = {
    "ml-1m": ml_1m, "movietweetings-100k": movietweetings, "gowalla": gowalla, "complete-journey": complete_journey,
    "ml-100k": ml_100k,
}  # fmt: skip


def shrunk(document: dict, folder: Path) -> RunConfig:
    """The same pipeline with little of everything: a value of each sweep and tuning, few columns and epochs."""
    document["data"]["from_path"] = folder
    if document["split"]["protocol"] != "published":
        document["split"]["options"] |= {"validation": 0.2, "test": 0.2}
    document["evaluation"]["noise"] = document["evaluation"].get("noise", [])[:1]
    sharded = [model for model in document["models"] if "ranks" in model]
    document["models"] = [model for model in document["models"] if model not in sharded[:-1]]  # ranks are slow to start
    for model in document["models"]:
        params = model.setdefault("params", {})
        for name, values in model.get("tune", {}).items():
            model["tune"][name] = values[:1]
        if "dim" in model.get("sweep", {}):
            model["sweep"]["dim"] = [4, 8]
        elif "dim" in params:
            params["dim"] = 16
        if "basis" in params:
            params |= {"basis": 32, "dim": 8}
        if "epochs" in params:
            tickets = "tickets" in model.get("sweep", {}).get("recipe.schedule", [])
            params["epochs"] = 4 if tickets else 2  # three rounds, and an epoch after the last
        if "ranks" in model:
            params |= {"batch_size": 256, "streams": 4}
        if "bytes" in params.get("recipe", {}):
            params["recipe"]["bytes"] = 500
        model["value_types"] = model.get("value_types", ["fp32"])[:2]
    return RunConfig.model_validate(document)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_says_what_it_means(file: Path) -> None:
    config = read_config(file)
    asked = trainings(config, f"{file}: ")
    assert len(asked) >= 3
    assert any(training.kind == "popularity" for training in asked)
    dense = [training for training in asked if training.recipe is None and "dim" in training.params]
    assert dense, "a sparse table has to beat a small dense one, so every pipeline has one"
    head = file.read_text().partition("\n[data]")[0]
    assert f"recsparse run pipelines/{file.name}" in head
    assert head.startswith("# ")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_runs(file: Path, pairs: pd.DataFrame, tmp_path: Path) -> None:
    document = tomllib.loads(file.read_text())
    if any("ranks" in model for model in document["models"]) and find_spec("torchrec") is None:
        pytest.skip("the extra `torchrec` is for Linux")
    WRITERS[document["data"]["source"]](tmp_path, pairs)
    config = shrunk(document, tmp_path)
    asked = trainings(config)
    results = Run(config, directory=tmp_path / "run")()
    assert [row.label for row in results.rows] == [
        training.label_of(value_type) for training in asked for value_type in training.value_types
    ]
    assert not (tmp_path / "run/ranks").exists(), "shards and checkpoints go when the model is saved"
    best = max(row.metrics[results.headline].mean for row in results.rows)
    assert 0 < best <= 1
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000


def test_a_new_night_scores_new_users_too(pairs: pd.DataFrame, tmp_path: Path) -> None:
    document = tomllib.loads((PIPELINES / "nightly-scoring.toml").read_text())
    ml_100k(tmp_path, pairs)
    run = Run(shrunk(document, tmp_path), directory=tmp_path / "run")

    def scored() -> pd.DataFrame:
        run()
        files = (tmp_path / "run/recommendations").glob("part-*.parquet")
        return pd.concat([pq.read_table(file).to_pandas() for file in files])

    yesterday = scored()
    assert yesterday["user_id"].nunique() == USERS
    new = pd.DataFrame({"user": USERS + 1, "item": [1, 3, 5], "rating": 9, "time": 1_600_000_000})
    ml_100k(tmp_path, pd.concat([pairs, new]))
    today = Run(shrunk(document, tmp_path), directory=tmp_path / "run")
    assert not any(done for _, done in today.plan())
    run = today
    found = scored()
    assert set(found["user_id"]) == set(yesterday["user_id"]) | {USERS + 1}
    assert not set(found.loc[found["user_id"] == USERS + 1, "item_id"]) & {1, 3, 5}
    assert all(done for _, done in today.plan())


def test_the_nightly_script_scores_and_goes_on(pairs: pd.DataFrame, tmp_path: Path) -> None:
    frame = pairs.rename(columns={"user": "user_id", "item": "item_id"})
    frame.to_parquet(tmp_path / "ratings.parquet", index=False)
    IALS(dim=4, epochs=2).fit(Interactions.from_frame(frame[frame["user_id"] <= 60])).save(tmp_path / "model")
    told = {"RATINGS": "ratings.parquet", "MODEL": "model", "OUTPUT": "out", "TODAY": "2026-01-02", "TOP": "5"}
    # The command stands beside the interpreter where the package is installed; else the module does as well.
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "recsparse"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m recsparse "$@"\n')
    command.chmod(0o755)
    told |= {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(PIPELINES.parent)}

    def run() -> subprocess.CompletedProcess[str]:
        script = [str(PIPELINES / "nightly" / "score.sh")]
        return subprocess.run(script, cwd=tmp_path, env=os.environ | told, check=False, capture_output=True, text=True)

    assert (done := run()).returncode == 0, done.stderr
    found = pd.concat([pq.read_table(part).to_pandas() for part in (tmp_path / "out/latest").rglob("*.parquet")])
    assert found["user_id"].nunique() == USERS
    assert (found.groupby("user_id").size() == 5).all()
    seen = set(map(tuple, frame[["user_id", "item_id"]].to_numpy().tolist()))
    assert not seen & set(map(tuple, found[["user_id", "item_id"]].to_numpy().tolist()))
    before = {part: part.stat().st_mtime_ns for part in (tmp_path / "out/2026-01-02").rglob("part*")}
    assert before
    assert run().returncode == 0
    assert before == {part: part.stat().st_mtime_ns for part in (tmp_path / "out/2026-01-02").rglob("part*")}

"""New items and users with features, through a whole run: what is saved, and what the report's rows say of it."""

import numpy as np
import pandas as pd
import pytest

from recsparse.evaluation import Evaluation
from recsparse.pipeline import Run
from recsparse.report import few_shot_figure, warm_up_figure

PIPELINE = """
name = "cold"

[data.source.ratings]
path = "{folder}/ratings.csv"
[data.source.users]
path = "{folder}/users.csv"
id = "user_id"
columns = {{ side = "side" }}
[data.source.items]
path = "{folder}/items.csv"
id = "item_id"
columns = {{ side = "side" }}

[split]
protocol = "{protocol}"
seed = 1
options = {{ validation = 0.1, test = 0.3 }}

[evaluation]
metrics = ["ndcg@10"]
headline = "ndcg@10"
few_shot = {few_shot}
warm_up = {warm_up}

[[models]]
kind = "random"

[[models]]
kind = "content-knn"

[[models]]
kind = "ials"
params = {{ dim = 8, epochs = 3 }}

[[models]]
kind = "feature-ials"
params = {{ dim = 8, epochs = 3 }}
value_types = ["fp32", "int8"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Users and items of two sides that mostly keep to their own, and say which it is."""
    folder = tmp_path_factory.mktemp("sides")
    rng = np.random.default_rng(0)
    side = np.arange(90)[:, None] % 2 == np.arange(50)[None, :] % 2
    user, item = np.nonzero(rng.random(side.shape) < np.where(side, 0.4, 0.04))
    pd.DataFrame({"user_id": user, "item_id": item}).to_csv(folder / "ratings.csv", index=False)
    for name, count in (("user", 90), ("item", 50)):
        frame = pd.DataFrame({f"{name}_id": range(count), "side": [f"side {n % 2}" for n in range(count)]})
        frame.to_csv(folder / f"{name}s.csv", index=False)
    return folder


def run(folder, tmp_path, **settings):
    (tmp_path / "cold.toml").write_text(PIPELINE.format(folder=folder, **settings))
    return Run.read(tmp_path / "cold.toml", directory=tmp_path / "run")()


def test_new_items_are_found_by_features_and_warm_up(folder, tmp_path):
    results = run(folder, tmp_path, protocol="cold-items", few_shot=[], warm_up=[0, 2, 10])
    cold = {row.label: row.cold_items["ndcg@10"] for row in results.rows}
    assert min(cold["Feature iALS 8"].mean, cold["Content-kNN"].mean) > 1.2 * max(
        cold["Random"].mean, cold["iALS 8"].mean
    )
    for row in results.rows:
        assert [point.gathered for point in row.warm_up] == [0, 2, 10]
    plain = [point.metrics["ndcg@10"] for point in results.row("iALS 8").warm_up]
    assert plain[2].mean > 1.2 * plain[0].mean
    assert plain[0].users < cold["iALS 8"].users  # the other half of the users brings the interactions
    saved = Evaluation.load(tmp_path / "run/evaluations/feature-ials-8-int8/warm-up-2.parquet")
    assert np.nanmean(saved.values("ndcg@10")) == results.row("Feature iALS 8 int8").warm_up[1].metrics["ndcg@10"].mean
    assert len(warm_up_figure(results).data) == 5
    page = (tmp_path / "run/report.html").read_text()
    assert "these items are ranked among themselves" in page
    assert "figure-warm_up" in page


def test_few_shot_by_history_by_features_and_by_both(folder, tmp_path):
    results = run(folder, tmp_path, protocol="strong", few_shot=[0, 1, 5], warm_up=[])
    both = {point.history: point.metrics["ndcg@10"].mean for point in results.row("Feature iALS 8").few_shot}
    alone = {point.history: point.fold_in["ndcg@10"].mean for point in results.row("Feature iALS 8").few_shot}
    assert both[0] > 1.2 * alone[0]  # alone: popularity
    assert alone[5] > 1.1 * alone[0]
    assert all(not point.fold_in for row in results.rows if row.model != "feature-ials" for point in row.few_shot)
    names = [trace.name for trace in few_shot_figure(results).data]
    assert {name.split(", ")[-1] for name in names} >= {"history alone", "features alone"}

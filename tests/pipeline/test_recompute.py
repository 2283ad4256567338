"""Every accuracy figure, interval, group, comparison and size of a report, again from the files beside it.

Only pandas, NumPy, SciPy and safetensors: nothing of recsparse is imported.
"""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from scipy import stats

USER, ITEM = "user_id", "item_id"


def values_of(frame, metric, keep=None):
    """A value a user from the ranks of its targets (of those in ``keep``); NaN where there is none."""
    name, k = metric.split("@")
    found = []
    for every, items in zip(frame["ranks"], frame["targets"], strict=True):
        ranks = np.array([rank for rank, item in zip(every, items, strict=True) if keep is None or item in keep])
        if not len(ranks):
            found.append(np.nan)
        elif name == "recall":
            found.append((ranks <= int(k)).mean())
        else:
            ideal = (1 / np.log2(np.arange(min(len(ranks), int(k))) + 2)).sum()
            found.append((1 / np.log2(ranks[ranks <= int(k)] + 1)).sum() / ideal)
    return np.array(found)


def interval(values):
    """Percentile bootstrap over users, 1,000 draws of seed 0."""
    drawn = values[np.random.default_rng(0).integers(0, len(values), size=(1000, len(values)))]
    with np.errstate(invalid="ignore"):
        means = np.nanmean(drawn, axis=1)
    return np.nanquantile(means, [0.025, 0.975])


def check(measured, values, where):
    assert measured["mean"] == pytest.approx(np.nanmean(values), abs=1e-12), where
    assert [measured["low"], measured["high"]] == pytest.approx(interval(values), abs=1e-12), where
    assert measured["users"] == (~np.isnan(values)).sum(), where
    assert measured["without"] == np.isnan(values).sum(), where


def slug(row):
    return row["label"].lower().replace(" ", "-")


@pytest.fixture(scope="module")
def per_user(finished, results):
    """Label -> file -> the lines of its users."""
    return {
        row["label"]: {
            file.stem: pd.read_parquet(file)
            for folder in ("evaluations", "models")
            for file in (finished / folder / slug(row)).glob("*.parquet")
            if "ranks" in pd.read_parquet(file).columns
        }
        for row in results["rows"]
    }


def test_accuracy_on_test_and_validation_users_and_by_history_length(results, per_user):
    for row in results["rows"]:
        files = per_user[row["label"]]
        for metric in row["metrics"]:
            check(row["metrics"][metric], values_of(files["test"], metric), (row["label"], metric))
            check(row["validation"][metric], values_of(files["validation"], metric), (row["label"], metric))
        assert {point["history"] for point in row["few_shot"]} == {1, 2, 3, 5, 10}
        for point in row["few_shot"]:
            frame = files[f"history-{point['history']}"]
            for metric, measured in point["metrics"].items():
                check(measured, values_of(frame, metric), (row["label"], point["history"]))


def test_popularity_groups_of_items_and_activity_groups_of_users(finished, results, per_user):
    items = pd.read_parquet(finished / "data/items.parquet")[ITEM]
    counts = pd.read_parquet(finished / "audit/train.parquet").groupby(ITEM).size().reindex(items, fill_value=0)
    falling = counts.sort_values(ascending=False, kind="stable")
    before = falling.cumsum() - falling
    third = counts.sum() / 3
    groups = {
        "head": falling.index[before < third],
        "torso": falling.index[(before >= third) & (before < 2 * third)],
        "tail": falling.index[(before >= 2 * third) & (falling > 0)],
    }
    for row in results["rows"]:
        frame = per_user[row["label"]]["test"]
        assert set(row["item_groups"]) - {"unseen"} == set(groups)
        for name, members in groups.items():
            for metric, measured in row["item_groups"][name].items():
                check(measured, values_of(frame, metric, set(members)), (row["label"], name, metric))
        low, high = frame["history"].quantile([1 / 3, 2 / 3])
        length = frame["history"]
        users = {"light": length <= low, "medium": (length > low) & (length <= high), "heavy": length > high}
        for name, measured in row["user_groups"].items():
            for metric, figure in measured.items():
                check(figure, values_of(frame, metric)[users[name].to_numpy()], (row["label"], name, metric))


def test_comparisons_user_by_user(results, per_user):
    headline = results["headline"]
    p = []
    for one in results["comparisons"]:
        a, b = (values_of(per_user[label]["test"], headline) for label in (one["a"], one["b"]))
        gap = a - b
        assert one["difference"] == pytest.approx(gap.mean(), abs=1e-12)
        assert [one["low"], one["high"]] == pytest.approx(interval(gap), abs=1e-12)
        assert (one["wins"], one["losses"]) == ((gap > 1e-15).sum(), (gap < -1e-15).sum())
        p.append(stats.ttest_rel(a, b).pvalue if gap.any() else 1.0)
        assert one["p_t"] == pytest.approx(p[-1], rel=1e-6)
    order, worst = np.argsort(p), 0.0
    for place, at in enumerate(order):
        worst = max(worst, min(1.0, p[at] * (len(p) - place)))
        assert results["comparisons"][at]["p_holm"] == pytest.approx(worst, rel=1e-6)


def _sums(sizes):
    """What one or several of the tensors take together."""
    found = {0}
    for size in sizes:
        found |= {size + other for other in found}
    return found


def test_bytes_and_what_is_kept(finished, results):
    for row in results["rows"]:
        file = finished / "models" / slug(row) / "item_table.safetensors"
        if not file.exists():
            assert row["bytes_total"] is None
            continue
        tensors = load_file(file)
        assert row["bytes_total"] == sum(tensor.nbytes for tensor in tensors.values())
        assert row["bytes_total"] == sum(row["breakdown"].values())
        assert set(row["breakdown"].values()) <= _sums(tensor.nbytes for tensor in tensors.values())
        assert row["cost"]["file_bytes"] == file.stat().st_size
        assert row["bytes_per_item"] == row["bytes_total"] / results["dataset"]["items"]


def test_lists_of_the_shipped_row(finished, results, shipped):
    lists = pd.read_parquet(finished / "audit/recommendations.parquet")
    lists = lists[lists["rank"] <= 20]
    n_items = results["dataset"]["items"]
    shown = lists.groupby(ITEM).size()
    share = shown / shown.sum()
    assert shipped["beyond"]["coverage@20"] == len(shown) / n_items
    assert shipped["beyond"]["entropy@20"] == pytest.approx(-(share * np.log(share)).sum() / np.log(n_items))
    train = pd.read_parquet(finished / "audit/train.parquet")
    counts = train.groupby(ITEM).size()
    surprise = -np.log2((lists[ITEM].map(counts).fillna(0) + 1) / (train[USER].nunique() + 1))
    assert shipped["beyond"]["novelty@20"] == pytest.approx(surprise.groupby(lists[USER]).mean().mean())


def test_counts(finished, results):
    data, split = results["dataset"], results["split"]
    parts = {part: pd.read_parquet(finished / f"audit/{part}.parquet") for part in ("train", "history", "target")}
    assert data["items"] == len(pd.read_parquet(finished / "data/items.parquet"))
    assert data["users"] == len(pd.read_parquet(finished / "data/users.parquet"))
    assert split["train_users"] == parts["train"][USER].nunique()
    assert split["test_users"] == parts["target"][USER].nunique()
    info = json.loads((finished / "data/dataset.json").read_text())
    assert data["interactions"] == info["counts"]["interactions"]

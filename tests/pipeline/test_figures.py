"""The figures of a run, computed again from its files with pandas and NumPy alone."""

import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

USER, ITEM = "user_id", "item_id"


def recomputed(recommended, target, alike=()):
    """Means of every metric over the users of ``target``, as in the README; lines ``alike`` share their gains."""
    sizes = target.groupby(USER).size()

    def gained(gain):
        lines = recommended.assign(gain=gain)
        if alike:
            lines["gain"] = lines.groupby([USER, *alike])["gain"].transform("mean")
        return lines.merge(target, on=[USER, ITEM]).groupby(USER)["gain"].sum().reindex(sizes.index, fill_value=0)

    found = {}
    for k in (10, 20, 100):
        gain = gained((recommended["rank"] <= k) / np.log2(recommended["rank"] + 1))
        ideal = sizes.map(lambda n, k=k: (1 / np.log2(np.arange(min(n, k)) + 2)).sum())
        found[f"ndcg@{k}"] = (gain / ideal).mean()
    for k in (20, 50):
        found[f"recall@{k}"] = (gained((recommended["rank"] <= k).astype(float)) / sizes).mean()
    return found


@pytest.fixture(scope="module")
def audit(finished):
    names = ("history", "target", "train", "recommendations")
    return {name: pd.read_parquet(finished / "audit" / f"{name}.parquet") for name in names}


def test_the_shipped_row_from_the_audit_files(audit, shipped):
    for metric, value in recomputed(audit["recommendations"], audit["target"]).items():
        assert shipped["metrics"][metric]["mean"] == pytest.approx(value, abs=1e-12), metric


def test_popularity_from_the_audit_files(finished, audit, results):
    items = pd.read_parquet(finished / "data" / "items.parquet")[ITEM]
    counts = audit["train"].groupby(ITEM).size().reindex(items, fill_value=0)
    ranking = items.to_numpy()[np.argsort(-counts.to_numpy(), kind="stable")]
    seen = audit["history"].groupby(USER)[ITEM].apply(set)
    lists = {user: [item for item in ranking if item not in seen[user]] for user in seen.index}
    lines = [(user, item, place + 1, counts[item]) for user, best in lists.items() for place, item in enumerate(best)]
    expected = recomputed(pd.DataFrame(lines, columns=[USER, ITEM, "rank", "count"]), audit["target"], ["count"])
    row = next(row for row in results["rows"] if row["label"] == "Popularity")
    for metric, value in expected.items():
        assert row["metrics"][metric]["mean"] == pytest.approx(value, abs=1e-12), metric
    assert row["bytes_total"] is None


def test_the_audit_holds_the_test_users_of_the_split(audit, results):
    users = set(audit["target"][USER])
    assert len(users) == results["split"]["test_users"]
    assert users == set(audit["history"][USER])
    assert not users & set(audit["train"][USER])
    assert audit["history"].merge(audit["target"], on=[USER, ITEM]).empty
    assert audit["recommendations"].merge(audit["history"], on=[USER, ITEM]).empty


def test_bytes_are_those_of_the_file(finished, results):
    rows = [row for row in results["rows"] if row["bytes_total"] is not None]
    assert [row["value_type"] for row in rows] == ["fp32", "int8", "fp32"]
    for row in rows:
        slug = row["label"].lower().replace(" ", "-")
        file = finished / "models" / slug / "item_table.safetensors"
        assert row["bytes_total"] == sum(tensor.nbytes for tensor in load_file(file).values())
        header = int.from_bytes(file.read_bytes()[:8], "little")
        assert row["bytes_total"] == file.stat().st_size - 8 - header
        assert row["bytes_per_item"] == row["bytes_total"] / results["dataset"]["items"]


def test_recommendations_are_as_the_contract_says(finished, shipped, results):
    table = pq.read_table(finished / "recommendations")
    assert table.schema.names == [USER, ITEM, "rank", "score", "status"]
    assert [str(table.schema.field(name).type) for name in ("rank", "score", "status")] == ["int32", "float", "string"]
    users = pd.read_parquet(finished / "data" / "users.parquet")[USER]
    lines = table.to_pandas()
    assert lines[USER].drop_duplicates().tolist() == users.tolist()
    assert lines.groupby(USER)["rank"].apply(list).map(lambda ranks: ranks == list(range(1, 8))).all()
    assert lines.groupby(USER)["score"].apply(lambda scores: scores.is_monotonic_decreasing).all()
    assert set(lines["status"]) == {"folded-in"}
    assert set(lines[ITEM]) <= set(pd.read_parquet(finished / "data" / "items.parquet")[ITEM])
    assert (finished / "recommendations" / "_SUCCESS").exists()
    assert json.loads((finished / "audit" / "model.json").read_text())["label"] == shipped["label"]

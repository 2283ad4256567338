import json

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from recsparse.evaluation import evaluate
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import split
from recsparse.models.base import Recommender
from recsparse.models.ials import IALS
from recsparse.models.popularity import Popularity
from recsparse.report import write_report
from recsparse.report.choice import choose, comparisons
from recsparse.report.complete import complete
from recsparse.report.results import Cost, Dataset, Measured, Results, Row, SplitInfo

METRICS = ["ndcg@10", "recall@10"]
MODELS = {
    "popularity": ("popularity", Popularity()),
    "dense": ("dense", IALS(dim=8, epochs=5)),
    "dense int8": ("quantised", IALS(dim=8, epochs=5, value_type="int8")),
    "rows": ("row", IALS(dim=8, epochs=5, recipe={"granularity": "row", "density": 0.6})),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small but whole run: fitted, saved, evaluated on validation and test users."""
    folder = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    taste = (np.arange(150) % 3)[:, None] == (np.arange(60) % 3)[None, :]
    matrix = sp.csr_array((rng.random((150, 60)) < np.where(taste, 0.5, 0.05)).astype(np.float32))
    items = pa.table({"item_id": np.arange(60), "genre": np.array(["War", "Love", "Fun"])[np.arange(60) % 3]})
    data = Interactions(matrix, pa.table({"user_id": np.arange(150)}), items)
    parts = split(data, "strong", validation=20, test=50, target=0.3, seed=0)
    rows, evaluations = [], {}
    for label, (family, model) in MODELS.items():
        model.fit(parts.train).save(folder / label)
        evaluations[label] = evaluate(model, parts.test, METRICS, name=label)
        tuned = evaluate(model, parts.validation, METRICS, role="validation")
        sizes = {}
        if family != "popularity":
            table = model.item_table_
            sizes = {"bytes_total": table.nbytes, "bytes_per_item": table.nbytes / 60, "breakdown": table.breakdown()}
        rows.append(
            Row(label=label, family=family, model=type(model).__name__, cost=Cost(fit_seconds=0.5),
                metrics={metric: Measured.of(one) for metric, one in evaluations[label].summaries.items()},
                validation={metric: Measured.of(one) for metric, one in tuned.summaries.items()}, **sizes)
        )  # fmt: skip
    results = Results(
        run="small", created="2026-11-24T12:00:00Z", headline="ndcg@10", max_loss=0.5, rows=rows,
        dataset=Dataset(name="made up", users=150, items=60, interactions=data.nnz),
        split=SplitInfo(protocol="strong", description="Unseen users.", train_users=80, test_users=50),
        comparisons=comparisons(rows, evaluations, "ndcg@10"),
    )  # fmt: skip
    return folder, parts, results, evaluations


def test_one_call_makes_the_effect_report(run, tmp_path):
    folder, parts, results, evaluations = run
    whole = complete(
        results, lambda label: Recommender.load(folder / label), evaluations, parts,
        file_of=lambda label: folder / label / "item_table.safetensors", noise=(0.2,), seeds=(0,), k=5,
    )  # fmt: skip
    assert [claim.name for claim in whole.claims] == [
        "Storage", "Computation", "Metadata", "Conversion", "Robustness", "Over-fitting", "Cold start", "Diversity",
        "Interpretability",
    ]  # fmt: skip
    assert all("(sparse) against dense (dense). " in claim.experiment for claim in whole.claims[4:])
    for row in whole.rows:
        assert set(row.item_groups) >= {"head", "torso", "tail"}
        assert row.beyond["coverage@5"] > 0
        assert row.cost.fit_seconds == 0.5
        assert (row.cost.lookup is not None) == bool(row.bytes_total)
    assert set(whole.row("rows").pruned_items) == {"zero", "mean", "group-mean", "hash", "features"}
    shown = {row.label for row in whole.rows if row.pruned_users}
    assert shown == {choose(whole).row.label, "dense"}
    users = whole.row("dense").pruned_users
    assert set(users) == {"own", "popularity", "zero", "mean", "group-mean", "hash"}
    assert users["own"]["ndcg@10"].mean > max(one["ndcg@10"].mean for name, one in users.items() if name != "own")
    assert whole.row("dense").pruned_items == {}
    assert whole.row("dense").beyond["overlap with dense@5"] == 1.0
    whole.write(tmp_path / "results.json")
    write_report(json.loads((tmp_path / "results.json").read_text()), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for words in ("Pruned items", "Beyond accuracy", "Interpretability", "Ship "):
        assert words in page


def test_without_noise_and_files_only_what_is_cheap(run):
    folder, parts, results, evaluations = run
    whole = complete(results, lambda label: Recommender.load(folder / label), evaluations, parts, k=5)
    assert [claim.name for claim in whole.claims] == ["Storage", "Metadata"]
    assert all(row.cost.lookup is None for row in whole.rows)


def test_without_a_dense_table_nothing_is_compared_with_one(run):
    folder, parts, results, evaluations = run
    rows = [row for row in results.rows if row.family in ("popularity", "row")]
    alone = results.model_copy(update={"rows": rows, "comparisons": []})
    whole = complete(alone, lambda label: Recommender.load(folder / label), evaluations, parts, noise=(0.2,), k=5)
    assert [claim.name for claim in whole.claims] == ["Metadata"]
    assert "overlap with dense@5" not in whole.row("rows").beyond

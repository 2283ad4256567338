"""The same training at any number of ranks, sharded in any way, and the same as plain torch and as one process."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch

from recsparse.distributed import TrainConfig, load_model, plan
from recsparse.distributed.features import Features
from recsparse.distributed.losses import sample_losses
from recsparse.distributed.planning import planned_tables
from recsparse.distributed.process import joined
from recsparse.distributed.rows import initial_rows
from recsparse.distributed.streams import Streams, scan
from recsparse.evaluation import evaluate
from recsparse.evaluation.cold_items import evaluate_cold_items
from recsparse.interactions import Interactions, read_split, split, write, write_split
from recsparse.kernels.sgd import BPR, SGD, SOFTMAX, SQUARED, Settings, Side, step_groups
from recsparse.models import Popularity
from recsparse.tables import load_table
from tests.distributed.conftest import of_kinds

LOSS_TOLERANCE = 2e-6
"""Relative difference of a step's loss: float32 sums in another order."""

GRADUAL = {"kind": "gradual", "start": 0.0, "end": 0.7}
CASES: dict[str, dict[str, Any]] = {
    "rows-bpr-sgd": {},
    "table-squared": {"users": {"sharding": "table-wise"}, "items": {"sharding": "table-wise"}, "loss": "squared",
                      "n_negatives": 3, "negative_weight": 0.5},
    "columns-softmax-adagrad": {"users": {"sharding": "column-wise"}, "items": {"sharding": "data-parallel"},
                                "loss": "softmax", "n_negatives": 4, "optimiser": "adagrad"},
    "planner": {"users": {"sharding": "auto", "placement": "balanced"}, "items": {"sharding": "auto"}},
    "elements": {"items": {"recipe": {"density": 0.2, "schedule": GRADUAL}}, "prune_every": 3},
    "blocks": {"users": {"recipe": {"density": 0.3, "granularity": {"kind": "block", "rows": 1, "columns": 4},
                                    "allocation": "uniform", "schedule": GRADUAL}},
               "items": {"sharding": "data-parallel", "recipe": {"density": 0.5, "granularity": "row"}},
               "prune_every": 3, "optimiser": "adagrad"},
    "dynamic": {"users": {"sharding": "column-wise", "recipe": {"density": 0.3, "schedule": "dynamic"}},
                "items": {"recipe": {"density": 0.25, "schedule": "dynamic", "criterion": "saliency"}},
                "prune_every": 3},
    "gradients": {"users": {"recipe": {"density": 0.3, "criterion": "saliency", "granularity": "row",
                                       "schedule": GRADUAL}, "sharding": "data-parallel"},
                  "items": {"recipe": {"density": 0.3, "criterion": "gradient", "schedule": GRADUAL}},
                  "prune_every": 3},
    "features": {"optimiser": "adagrad", "user_features": {"sharding": "column-wise"},
                 "item_features": {"recipe": {"density": 0.5, "granularity": "row", "schedule": GRADUAL}},
                 "items": {"placement": "balanced"}, "users": {"budget": {"rows": 70, "every": 3}}, "prune_every": 3},
    "budgets": {"users": {"budget": {"rows": 70, "every": 3}, "sharding": "column-wise"},
                "items": {"budget": {"rows": 50, "every": 4, "utility": "gradient", "fallback": "zero"}}},
    "budgets-adagrad": {"users": {"budget": {"rows": 70, "every": 3, "utility": "norm"}, "sharding": "data-parallel"},
                        "items": {"budget": {"rows": 50, "every": 4}, "sharding": "table-wise"},
                        "optimiser": "adagrad", "loss": "softmax"},
}  # fmt: skip


QUICK = ("rows-bpr-sgd", "columns-softmax-adagrad", "elements", "blocks", "dynamic", "gradients", "budgets", "features")


def outcome(output: Path) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    summary = json.loads((output / "training.json").read_text())
    losses = pq.read_table(output / "losses.parquet").to_pandas()
    tables = {name: load_table(output / name).to_dense() for name in ("user_table", "item_table")}
    return summary, losses, tables


def compare(
    settings: dict[str, Any], launch: Any, tmp_path: Path, ranks: tuple[int, ...], names: tuple[str, ...]
) -> None:
    for n in ranks:
        configs = [settings | CASES[name] | {"output": str(tmp_path / f"{name}-{n}")} for name in names]
        launch(n, "train", *configs).check()
    for name in names:
        summary, losses, tables = outcome(tmp_path / f"{name}-{ranks[0]}")
        assert np.isfinite(losses["loss"]).all()
        for n in ranks[1:]:
            other_summary, other_losses, other_tables = outcome(tmp_path / f"{name}-{n}")
            np.testing.assert_array_equal(losses["samples"], other_losses["samples"], err_msg=name)
            np.testing.assert_allclose(losses["loss"], other_losses["loss"], rtol=LOSS_TOLERANCE, err_msg=name)
            assert other_summary["metrics"] == pytest.approx(summary["metrics"], abs=1e-9), name
            assert len(other_summary["validation"]) == settings["epochs"]
            assert other_summary["validation"][-1] == other_summary["metrics"]
            assert len(other_summary["bytes_sent_per_step"]) == n
            assert min(other_summary["bytes_sent_per_step"]) > 0
            for table, values in tables.items():
                np.testing.assert_allclose(values, other_tables[table], atol=2e-6, err_msg=f"{name} {table}")


def check_planned(summary: dict[str, Any]) -> None:
    """Held and served was what ``plan`` says, byte for byte, but for remaps that no row needed and files' paddings."""
    config, ranks = TrainConfig.parse(summary["settings"]), summary["ranks"]
    tables = planned_tables(config, 260, 120, user_features=6, item_features=14)
    planned = plan(
        tables, world_size=ranks, device_memory=1 << 30, device="cpu", optimiser=config.optimiser,
        batch_size=config.batch_size, search=False,
    ).sparse  # fmt: skip
    unused = sum(table.copied_bytes for table in tables if not summary["remap_bytes"][table.name])
    assert sorted(held - unused for held in planned.held) == sorted(summary["bytes_held"]), config.output
    for table in tables:
        if table.budget is None:
            assert summary["packed"][table.name]["nbytes"] == pytest.approx(table.served_bytes, abs=50), config.output


def test_one_and_two_ranks_agree_and_pruning_meets_its_budgets(
    settings: dict[str, Any], launch: Any, tmp_path: Path
) -> None:
    compare(settings, launch, tmp_path, (1, 2), QUICK)
    for name in QUICK:
        check_planned(outcome(tmp_path / f"{name}-2")[0])
    _, _, tables = outcome(tmp_path / "elements-2")
    assert np.count_nonzero(tables["item_table"]) == round(0.2 * tables["item_table"].size)
    summary, _, tables = outcome(tmp_path / "blocks-2")
    users = tables["user_table"].reshape(-1, 4, 4)
    kept = users.any(axis=2)
    assert kept.sum() == round(0.3 * kept.size)
    assert kept.sum(axis=1).min() == 1  # uniform: 1.2 of 4 blocks a row, so one each, then the best of the rest
    assert summary["rows_present"]["item_table"] == 0.5
    _, _, tables = outcome(tmp_path / "dynamic-2")
    assert np.count_nonzero(tables["user_table"]) <= round(0.3 * tables["user_table"].size)
    summary, _, tables = outcome(tmp_path / "budgets-2")
    assert summary["rows_present"] == {"user_table": 70 / 260, "item_table": 50 / 120}
    assert len(np.unique(tables["user_table"], axis=0)) <= 71  # 70 rows and the mean
    assert load_table(tmp_path / "budgets-2" / "user_table").lookup([-1]).any()
    dense = outcome(tmp_path / "rows-bpr-sgd-2")[0]
    # An id without a row is not sent, nor is an entry that is pruned.
    assert sum(summary["bytes_sent_per_step"]) < 0.8 * sum(dense["bytes_sent_per_step"])
    assert sum(outcome(tmp_path / "elements-2")[0]["bytes_sent_per_step"]) < 0.8 * sum(dense["bytes_sent_per_step"])
    # 14 features: 6 kinds, 7 sizes and the year.
    assert outcome(tmp_path / "features-2")[0]["rows_present"]["item_feature_table"] == 7 / 14
    check_single_process(settings, tmp_path)


def check_single_process(settings: dict[str, Any], tmp_path: Path) -> None:
    """Metrics from shards are those of ``evaluate``, and the tables those of a loop in plain torch."""
    parts = read_split(Path(settings["data"]))
    summary, losses, tables = outcome(tmp_path / "rows-bpr-sgd-2")
    model = load_model(tmp_path / "rows-bpr-sgd-2")
    found = evaluate(model, parts.validation, ["ndcg@20", "recall@20"], role="validation").summaries
    assert summary["metrics"] == pytest.approx({name: each.mean for name, each in found.items()}, abs=1e-9)

    config = TrainConfig.parse(settings)
    data = config.data / "train"
    with joined(10):
        contents = scan(data, 0, 1)
    streams = Streams(data, contents, streams=12, batch_size=256, n_negatives=1, seed=0)
    std = 0.1 / 4
    U, V = (
        torch.from_numpy(initial_rows(0, name, 0, n, 16, std)).requires_grad_()
        for name, n in (("user_table", len(contents.users)), ("item_table", len(contents.items)))
    )
    for done in range(config.epochs * streams.steps):
        batch = streams.batch(done // streams.steps, done % streams.steps)
        users, items = torch.from_numpy(batch.users), torch.from_numpy(batch.items)
        loss = sample_losses("bpr", U[users], V[items], reg=config.reg, negative_weight=1.0).sum()
        assert float(loss.detach()) == pytest.approx(losses["loss"][done], rel=LOSS_TOLERANCE)
        loss.backward()
        for table in (U, V):
            table.data -= config.learning_rate * table.grad
            table.grad = None
    np.testing.assert_allclose(tables["user_table"], U.detach(), atol=2e-6)
    np.testing.assert_allclose(tables["item_table"], V.detach(), atol=2e-6)


def test_a_sample_a_step_is_what_the_kernel_of_one_process_does(
    settings: dict[str, Any], launch: Any, tmp_path: Path
) -> None:
    matrix = sp.csr_array((np.random.default_rng(1).random((12, 900)) < 0.01).astype(np.float32))
    data = write(Interactions.from_csr(matrix), tmp_path / "tiny")
    losses = {"bpr": BPR, "softmax": SOFTMAX, "squared": SQUARED}
    configs = [
        settings | {"data": str(data), "output": str(tmp_path / loss), "loss": loss, "n_negatives": 3, "batch_size": 1,
                    "streams": 1, "negative_weight": 0.5, "reg": 0.1, "learning_rate": 0.2}
        for loss in losses
    ]  # fmt: skip
    launch(1, "train", *configs).check()
    with joined(10):
        contents = scan(data, 0, 1)
    streams = Streams(data, contents, streams=1, batch_size=1, n_negatives=3, seed=0)
    n = 2 * streams.steps
    batches = [streams.batch(t // streams.steps, t % streams.steps) for t in range(n)]
    group_users = np.concatenate([batch.users for batch in batches])
    rows = np.concatenate([batch.items.ravel() for batch in batches])
    # The kernel steps a row drawn twice in a sample one after the other; torch adds both gradients up.
    assert all(len(set(batch.items.ravel().tolist())) == 4 for batch in batches)
    for loss, number in losses.items():
        sides = [
            Side(initial_rows(0, name, 0, size, 16, 0.1 / 4), *(np.zeros((0, 16), np.float32),) * 2,
                 np.zeros(0, np.int64), np.zeros((0, 16), np.float32))
            for name, size in (("user_table", 12), ("item_table", 900))
        ]  # fmt: skip
        optimise = Settings(number, SGD, np.float32(0.2), np.float32(0.1), 3, np.float32(0.5))
        for t in range(n):
            step_groups(
                t, t + 1, group_users, rows[4 * t : 4 * t + 4], np.array([4]), *sides, optimise,
                np.zeros(900, np.float32), np.empty(4, np.float32), np.zeros(16, np.float32), np.empty(16, np.float32),
            )  # fmt: skip
        _, _, tables = outcome(tmp_path / loss)
        np.testing.assert_allclose(tables["user_table"], sides[0].values, atol=2e-6, err_msg=loss)
        np.testing.assert_allclose(tables["item_table"], sides[1].values, atol=2e-6, err_msg=loss)


def test_features_answer_for_cold_items_and_patience_keeps_the_best_epoch(
    settings: dict[str, Any], launch: Any, tmp_path: Path
) -> None:
    parts = split(of_kinds(), "cold-items", seed=1)
    data = write_split(parts, tmp_path / "cold")
    featured = settings | {"data": str(data), "epochs": 6, "optimiser": "adagrad", "learning_rate": 0.1,
                           "item_features": {}, "user_features": {}, "output": str(tmp_path / "featured")}  # fmt: skip
    hasty = settings | {"epochs": 40, "optimiser": "adagrad", "learning_rate": 0.3, "patience": 2,
                        "checkpoint_every": 5, "keep": 99}  # fmt: skip
    strong = split(of_kinds(), "strong", seed=1)
    strangers = settings | {
        "data": str(write_split(strong, tmp_path / "strong")),
        "output": str(tmp_path / "strangers"),
    }
    launch(2, "train", featured, hasty, strangers | {"learning_rate": 0.2, "epochs": 8}).check()

    model = load_model(tmp_path / "featured")
    cold = model.popularity_ == 0
    assert cold.sum() == 24
    features = Features.of("item_feature_table", parts.train.items).matrix
    said = features @ load_table(tmp_path / "featured" / "item_feature_table").to_dense()
    vectors = model.item_table_.to_dense()
    np.testing.assert_allclose(vectors[cold], said[cold], atol=1e-6)
    assert np.abs(vectors[cold]).max(axis=1).min() > 0.1
    assert np.abs(vectors - said)[~cold].max(axis=1).min() > 0.01  # others have a row of their own beside
    found, popular = (
        evaluate_cold_items(each, parts.validation, ["ndcg@20"]).summaries["ndcg@20"].mean
        for each in (model, Popularity().fit(parts.train))
    )
    assert found > 1.2 * popular

    # Every rank asks for every feature; users are on the rank that asks for them, mostly.
    summary, losses, _ = outcome(tmp_path / "featured")
    tables = planned_tables(TrainConfig.parse(featured), 260, 120, user_features=6, item_features=14)[1:]
    samples = round(losses["samples"].mean())
    planned = plan(tables, world_size=2, device_memory=1 << 30, device="cpu", batch_size=samples, search=False).sparse
    assert sum(summary["bytes_sent_per_step"]) / 2 == pytest.approx(planned.traffic, rel=0.05)

    # Validation users that are not trained on are folded in as on one machine.
    metrics = outcome(tmp_path / "strangers")[0]["metrics"]
    alone = evaluate(load_model(tmp_path / "strangers"), strong.validation, list(metrics), role="validation").summaries
    assert metrics == pytest.approx({name: each.mean for name, each in alone.items()}, abs=1e-4)
    assert metrics["ndcg@20"] > 0.05

    stopped = load_model(hasty["output"])
    assert (stopped.epochs_, stopped.best_epoch_) == (len(stopped.validation_), len(stopped.validation_) - 2)
    summary, losses, tables = outcome(Path(hasty["output"]))
    values = [epoch["ndcg@20"] for epoch in summary["validation"]]
    assert summary["epoch"] == 1 + int(np.argmax(values)) == len(values) - 2 < 38
    assert summary["metrics"] == summary["validation"][-3]
    assert summary["steps"] == len(losses) == len(values) * 6
    until = hasty | {"epochs": summary["epoch"], "output": str(tmp_path / "until"), "patience": None}
    resumed = hasty | {"output": str(tmp_path / "resumed")}
    shutil.copytree(hasty["output"], resumed["output"])
    (tmp_path / "resumed" / "training.json").unlink()
    for checkpoint in sorted((tmp_path / "resumed" / "checkpoints").iterdir())[2:]:
        shutil.rmtree(checkpoint)  # what is left is of the second epoch; the best one's is newer and goes on from there
    launch(2, "train", until, resumed).check()
    for output in ("until", "resumed"):
        for name, values in outcome(tmp_path / output)[2].items():
            np.testing.assert_array_equal(values, tables[name])
    again, _, _ = outcome(tmp_path / "resumed")
    assert (again["resumed_at"], again["validation"]) == (6 * summary["epoch"], summary["validation"])


@pytest.mark.slow
def test_one_to_four_ranks_agree(settings: dict[str, Any], launch: Any, tmp_path: Path) -> None:
    compare(settings | {"epochs": 3}, launch, tmp_path, (1, 2, 3, 4), tuple(CASES))

"""The same training at any number of ranks, sharded in any way, and the same as plain torch and as one process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from recsparse.distributed.config import TrainConfig
from recsparse.distributed.losses import sample_losses
from recsparse.distributed.process import joined
from recsparse.distributed.rows import initial_rows
from recsparse.distributed.streams import Streams, scan
from recsparse.evaluation import evaluate
from recsparse.interactions import read_split
from recsparse.models import Recommender
from recsparse.tables import load_table

LOSS_TOLERANCE = 2e-6
"""Relative difference of a step's loss: float32 sums in another order."""

GRADUAL = {"kind": "gradual", "start": 0.0, "end": 0.7}
CASES: dict[str, dict[str, Any]] = {
    "rows-bpr-sgd": {},
    "table-squared": {"users": {"sharding": "table-wise"}, "items": {"sharding": "table-wise"}, "loss": "squared",
                      "negatives": 3, "negative_weight": 0.5},
    "columns-softmax-adagrad": {"users": {"sharding": "column-wise"}, "items": {"sharding": "data-parallel"},
                                "loss": "softmax", "negatives": 4, "optimiser": "adagrad"},
    "planner": {"users": {"sharding": "auto", "placement": "balanced"}, "items": {"sharding": "auto"}},
    "elements": {"items": {"recipe": {"density": 0.2, "schedule": GRADUAL}}, "prune_every": 3},
    "blocks": {"users": {"recipe": {"density": 0.3, "granularity": {"kind": "block", "rows": 1, "columns": 4},
                                    "allocation": "uniform", "schedule": GRADUAL}},
               "items": {"sharding": "data-parallel", "recipe": {"density": 0.5, "granularity": "row"}},
               "prune_every": 3, "optimiser": "adagrad"},
    "dynamic": {"users": {"sharding": "column-wise", "recipe": {"density": 0.3, "schedule": "dynamic"}},
                "items": {"recipe": {"density": 0.25, "schedule": "dynamic"}}, "prune_every": 3},
    "budgets": {"users": {"budget": {"rows": 70, "every": 3}, "sharding": "column-wise"},
                "items": {"budget": {"rows": 50, "every": 4, "utility": "gradient", "fallback": "zero"}}},
    "budgets-adagrad": {"users": {"budget": {"rows": 70, "every": 3, "utility": "norm"}, "sharding": "data-parallel"},
                        "items": {"budget": {"rows": 50, "every": 4}, "sharding": "table-wise"},
                        "optimiser": "adagrad", "loss": "softmax"},
}  # fmt: skip


QUICK = ("rows-bpr-sgd", "columns-softmax-adagrad", "elements", "blocks", "dynamic", "budgets")


class Given(Recommender):
    """Users and items whose vectors are known."""

    kind = "given-in-a-test"

    def __init__(self, users: Any = None, items: Any = None) -> None:
        self.users, self.items = users, items

    def _fit(self, interactions: Any) -> None: ...
    def _fold_in(self, histories: Any) -> Any:
        raise NotImplementedError

    def _represent(self, rows: Any, histories: Any) -> Any:
        return self.users[rows]

    def scores(self, queries: Any) -> Any:
        return queries @ self.items.T

    def _save_state(self, directory: Path) -> None: ...
    def _load_state(self, directory: Path) -> None: ...


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
        launch(n, "train", *configs, timeout=300).check()
    for name in names:
        summary, losses, tables = outcome(tmp_path / f"{name}-{ranks[0]}")
        assert np.isfinite(losses["loss"]).all()
        for n in ranks[1:]:
            other_summary, other_losses, other_tables = outcome(tmp_path / f"{name}-{n}")
            np.testing.assert_array_equal(losses["samples"], other_losses["samples"], err_msg=name)
            np.testing.assert_allclose(losses["loss"], other_losses["loss"], rtol=LOSS_TOLERANCE, err_msg=name)
            assert other_summary["metrics"] == pytest.approx(summary["metrics"], abs=1e-9), name
            assert len(other_summary["bytes_sent_per_step"]) == n
            assert min(other_summary["bytes_sent_per_step"]) > 0
            for table, values in tables.items():
                np.testing.assert_allclose(values, other_tables[table], atol=2e-6, err_msg=f"{name} {table}")


def test_one_and_two_ranks_agree_and_pruning_meets_its_budgets(
    settings: dict[str, Any], launch: Any, tmp_path: Path
) -> None:
    compare(settings, launch, tmp_path, (1, 2), QUICK)
    _, _, tables = outcome(tmp_path / "elements-2")
    assert np.count_nonzero(tables["item_table"]) == round(0.2 * tables["item_table"].size)
    summary, _, tables = outcome(tmp_path / "blocks-2")
    users = tables["user_table"].reshape(-1, 4, 4)
    kept = users.any(axis=2)
    assert kept.sum() == round(0.3 * kept.size)
    assert set(kept.sum(axis=1)) <= {1, 2}  # uniform: 1.2 of 4 blocks in each row
    assert summary["rows_present"]["item_table"] == 0.5
    _, _, tables = outcome(tmp_path / "dynamic-2")
    assert np.count_nonzero(tables["user_table"]) <= round(0.3 * tables["user_table"].size)
    summary, _, tables = outcome(tmp_path / "budgets-2")
    assert summary["rows_present"] == {"user_table": 70 / 260, "item_table": 50 / 120}
    assert len(np.unique(tables["user_table"], axis=0)) <= 71  # 70 rows and the mean
    assert load_table(tmp_path / "budgets-2" / "user_table").lookup([-1]).any()
    dense = outcome(tmp_path / "rows-bpr-sgd-2")[0]
    # An id without a row is not sent.
    assert sum(summary["bytes_sent_per_step"]) < 0.8 * sum(dense["bytes_sent_per_step"])
    check_single_process(settings, tmp_path)


def check_single_process(settings: dict[str, Any], tmp_path: Path) -> None:
    """Metrics from shards are those of ``evaluate``, and the tables those of a loop in plain torch."""
    parts = read_split(Path(settings["data"]))
    summary, losses, tables = outcome(tmp_path / "rows-bpr-sgd-2")
    model = Given(tables["user_table"], tables["item_table"]).fit(parts.train)
    found = evaluate(model, parts.validation, ["ndcg@20", "recall@20"], role="validation").summaries
    assert summary["metrics"] == pytest.approx({name: each.mean for name, each in found.items()}, abs=1e-9)

    config = TrainConfig.parse(settings)
    data = config.data / "train"
    with joined(10):
        contents = scan(data, 0, 1)
    streams = Streams(data, contents, streams=12, batch_size=256, negatives=1, seed=0)
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
            table.data -= config.rate * table.grad
            table.grad = None
    np.testing.assert_allclose(tables["user_table"], U.detach(), atol=2e-6)
    np.testing.assert_allclose(tables["item_table"], V.detach(), atol=2e-6)


@pytest.mark.slow
def test_one_to_four_ranks_agree(settings: dict[str, Any], launch: Any, tmp_path: Path) -> None:
    compare(settings | {"epochs": 3}, launch, tmp_path, (1, 2, 3, 4), tuple(CASES))

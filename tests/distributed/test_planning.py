"""Plans on paper: what fits, what does not and why, and the same shards as a real run has."""

import json
from pathlib import Path
from typing import Any

import pytest

from recsparse.distributed import PlannedTable, TrainConfig, plan
from recsparse.distributed.config import Budget
from recsparse.distributed.planning import planned_tables
from recsparse.errors import ConfigError
from recsparse.sparsity import Recipe

ROWS = Recipe(density=0.1, granularity="row")


def test_a_billion_rows_fit_after_pruning_and_not_before() -> None:
    tables = [
        PlannedTable("users", 1_000_000_000, 128, recipe=ROWS),
        PlannedTable("items", 50_000_000, 128, lookups=2.0),
    ]
    found = plan(tables, world_size=8, device_memory=40 << 30)
    assert not found.dense.fits
    # 1.05 billion rows of 128 floats and one sum of squares each.
    assert f"{1_050_000_000 * (128 * 4 + 4):,} bytes of weights and optimiser (users alone" in found.dense.reason
    assert found.sparse.fits
    assert found.sparse.weight_bytes == 150_000_000 * 128 * 4
    assert found.remap_bytes == 4_000_000_000
    assert found.dense.smallest > 8 >= found.sparse.smallest
    # The fullest device holds its share of weights and sums, and the whole remap.
    least = 150_000_000 * (128 * 4 + 4) // 8 + found.remap_bytes
    assert least <= found.sparse.bytes_per_device <= 40 << 30
    assert {name for name, *_ in found.sparse.shards} == {"users", "items"}
    assert found.served["users"] == 1_000_000_000 * 17 // 128 + 100_000_000 * 128 * 4


def test_elements_pay_when_served_and_not_while_they_train() -> None:
    dense = PlannedTable("items", 1_000_000, 64)
    sparse = PlannedTable("items", 1_000_000, 64, recipe=Recipe(density=0.125))
    found = plan([sparse], world_size=2, device_memory=1 << 30, device="cpu", search=False)
    assert found.sparse.bytes_per_device - found.dense.bytes_per_device == sparse.extra_bytes // 2
    assert found.served["items"] < 0.2 * dense.served_bytes
    assert sparse.extra_bytes == 64_000_000
    for recipe in (Recipe(density=0.125, schedule="dynamic"), Recipe(density=0.125, criterion="gradient")):
        assert PlannedTable("items", 1_000_000, 64, recipe=recipe).extra_bytes == 5 * 64_000_000


def test_what_cannot_be_planned_is_said() -> None:
    with pytest.raises(ConfigError, match="each of another name"):
        plan([PlannedTable("a", 5, 4), PlannedTable("a", 5, 4)], world_size=1, device_memory=1 << 30)
    with pytest.raises(ConfigError, match="a dim in fours"):
        plan([PlannedTable("a", 5, 6)], world_size=1, device_memory=1 << 30)
    remap = PlannedTable("ids", 1_000_000_000, 4, budget=Budget(rows=1_000_000))
    found = plan([remap], world_size=4, device_memory=1 << 30, search=False)
    assert not found.sparse.fits
    assert "remaps alone take 4,000,000,000 bytes" in found.sparse.reason


def test_feature_tables_are_planned_too() -> None:
    config = TrainConfig.parse(
        {"data": ".", "output": ".", "optimiser": "adagrad", "item_features": {"recipe": {"density": 0.5}}}
    )
    tables = planned_tables(config, 100, 50, item_features=20)
    assert [(table.name, table.rows) for table in tables] == [
        ("user_table", 100), ("item_table", 50), ("item_feature_table", 20)
    ]  # fmt: skip
    assert tables[2].served_bytes < 20 * 64 * 4
    with pytest.raises(ConfigError, match="how many features"):
        planned_tables(config, 100, 50)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_real_shards_are_the_planned_ones(settings: dict[str, Any], launch: Any, ranks: int) -> None:
    config = settings | {"users": {"sharding": "auto", "budget": {"rows": 90}}, "items": {"sharding": "row-wise"}}
    launch(ranks, "train", config).check()
    TrainConfig.parse(config)
    real = json.loads((Path(settings["output"]) / "training.json").read_text())["shards"]
    tables = [
        PlannedTable("user_table", 260, 16, "auto", budget=Budget(rows=90)),
        PlannedTable("item_table", 120, 16, "row-wise", lookups=2.0),
    ]
    planned = plan(
        tables, world_size=ranks, device_memory=128 << 30, device="cpu", optimiser="sgd", batch_size=256, search=False
    ).sparse

    def by_rank(shards: Any) -> dict[int, int]:
        held = dict.fromkeys(range(ranks), 0)
        for rank, rows, columns in shards:
            held[rank] += rows * columns * 4
        return held

    measured = by_rank((rank, rows, columns) for shards in real.values() for rank, _, _, rows, columns in shards)
    assert by_rank((rank, rows, columns) for _, rank, _, _, rows, columns in planned.shards) == measured
    assert sum(measured.values()) == planned.weight_bytes

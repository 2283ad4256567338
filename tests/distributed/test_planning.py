"""Plans on paper: what fits, what does not and why, and the same shards as a real run has."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsparse.distributed import PlannedTable, TrainConfig, plan
from recsparse.distributed.config import Budget
from recsparse.distributed.planning import planned_tables
from recsparse.errors import BudgetError, ConfigError
from recsparse.sparsity import Recipe


def test_a_billion_ids_fit_in_a_row_budget_and_not_before() -> None:
    tables = [
        PlannedTable("users", 1_000_000_000, 128, budget=Budget(rows=100_000_000)),
        PlannedTable("items", 50_000_000, 128, lookups=2.0),
    ]
    found = plan(tables, world_size=8, device_memory=40 << 30)
    assert not found.dense.fits
    # 1.05 billion rows of 128 floats and one sum of squares each.
    assert f"{1_050_000_000 * (128 * 4 + 4):,} bytes of weights and optimiser (users alone" in found.dense.reason
    assert found.sparse.fits
    assert found.sparse.weight_bytes == 150_000_000 * 128 * 4
    assert found.copied_bytes == 1_000_000_000 * (4 + 2 * 8)  # remap; utility of the past, and of what came since
    assert found.dense.smallest > 8 >= found.sparse.smallest
    # Each device holds its share of weights and sums, and remap and utilities of all ids.
    assert found.sparse.held == (150_000_000 * (128 * 4 + 4) // 8 + found.copied_bytes,) * 8
    assert found.sparse.held[0] <= found.sparse.bytes_per_device <= 40 << 30
    assert {name for name, *_ in found.sparse.shards} == {"users", "items"}
    assert found.served["users"] == 1_000_000_000 * 17 // 128 + 100_000_000 * 128 * 4


def test_recipes_pay_when_served_and_not_while_they_train() -> None:
    def bytes_of(**recipe: Any) -> tuple[int, int]:
        """What an entry takes while it trains, in all and beside the copies, and what is served."""
        tables = [PlannedTable("items", 1_000_000, 64, "row-wise", recipe=Recipe(**recipe))]
        found = plan(tables, world_size=2, device_memory=1 << 30, device="cpu", optimiser="sgd", search=False)
        assert found.sparse.bytes_per_device - found.dense.bytes_per_device == found.sparse.held[0] - 128_000_000
        assert found.served_dense["items"] == 256_000_000
        return found.sparse.held[0] - found.copied_bytes, found.served["items"]

    # A mask is a byte an entry, a pull four, of rows as of elements; half of the entries are on each device.
    assert bytes_of(density=0.125, granularity="row") == (32_000_000 * 5, 1_000_000 * 17 // 128 + 1 + 125_000 * 256)
    assert bytes_of(density=0.125, criterion="gradient")[0] == 32_000_000 * 9
    assert bytes_of(density=0.125, schedule="dynamic")[0] == 32_000_000 * 9
    training, served = bytes_of(density=0.125)
    assert training == 32_000_000 * 5
    # 8 numbers a row and, as a chunk of 64 with k of them takes log2 C(64, k) bits and a count, some 5 bytes.
    assert 1_000_000 * (8 * 4 + 4) < served < 1_000_000 * (8 * 4 + 6)


@pytest.mark.parametrize("value_type", ["fp32", "int8"])
@pytest.mark.parametrize("granularity", ["element", "row", {"kind": "block", "rows": 1, "columns": 4}])
def test_a_budget_in_bytes_is_planned_as_what_it_buys(granularity: Any, value_type: str) -> None:
    def served(**budget: Any) -> int:
        recipe = Recipe(granularity=granularity, **budget)
        return PlannedTable("t", 3000, 16, recipe=recipe, value_type=value_type).served_bytes

    assert 0.995 * 9000 < served(bytes=9000) <= 9000
    assert served(bytes=served(density=0.2)) == pytest.approx(served(density=0.2), abs=40)
    with pytest.raises(BudgetError, match="A budget of 90 bytes is too small"):
        served(bytes=90)


def test_every_rank_asks_for_every_feature() -> None:
    features = PlannedTable("features", 1000, 16, "row-wise", once=True)
    sent = [plan([features], world_size=n, device_memory=1 << 30, search=False).sparse.traffic for n in (1, 2, 4)]
    # Of 1000 ids and vectors that come and gradients that go, those of other ranks.
    assert sent == [0, 1000 * (8 + 2 * 64) / 2, 1000 * (8 + 2 * 64) * 3 / 4]


def test_what_cannot_be_planned_is_said() -> None:
    with pytest.raises(ConfigError, match="each of another name"):
        plan([PlannedTable("a", 5, 4), PlannedTable("a", 5, 4)], world_size=1, device_memory=1 << 30)
    with pytest.raises(ConfigError, match="a dim in fours"):
        plan([PlannedTable("a", 5, 6)], world_size=1, device_memory=1 << 30)
    remap = PlannedTable("ids", 1_000_000_000, 4, budget=Budget(rows=1_000_000))
    found = plan([remap], world_size=4, device_memory=1 << 30, search=False)
    assert not found.sparse.fits
    assert "utilities alone take 20,000,000,000 bytes" in found.sparse.reason


def test_feature_tables_are_planned_too() -> None:
    config = TrainConfig.parse(
        {"data": ".", "output": ".", "optimiser": "adagrad", "item_features": {"recipe": {"density": 0.5}}}
    )
    tables = planned_tables(config, 100, 50, item_features=20)
    assert [(table.name, table.rows) for table in tables] == [
        ("user_table", 100), ("item_table", 50), ("item_feature_table", 20)
    ]  # fmt: skip
    assert tables[2].served_bytes < 20 * 64 * 4
    assert replace(tables[1], recipe=Recipe(density=0.1)).served_bytes == 50 * 64 * 4  # sums with features are dense
    assert [table.once for table in tables] == [False, False, True]
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

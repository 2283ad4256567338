"""A recipe on shards decides what it decides on the whole table, and a row budget moves rows as it says."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from recsparse.distributed.budget import RowBudget
from recsparse.distributed.config import Budget, TrainConfig
from recsparse.distributed.planning import planned_tables
from recsparse.distributed.process import joined
from recsparse.distributed.pruning import ALIVE, ShardedPruner
from recsparse.distributed.rows import Rows
from recsparse.distributed.sharded import Place, Shard, TableSpec
from recsparse.sparsity import Evidence, Pruner, Recipe
from recsparse.tables import Mask, choose_layout, load_table

GRADUAL = {"kind": "gradual", "start": 0.0, "end": 1.0}


def in_shards(values: np.ndarray, cuts: list[tuple[int, int, int, int]]) -> Any:
    """Tables that hold all shards themselves, so nothing is summed over ranks."""
    spec = TableSpec("t", *values.shape, "data-parallel")
    places = [Place(row, column, rows, columns, 0) for row, column, rows, columns in cuts]
    shards = [
        Shard("t", place, torch.from_numpy(values[place.row : place.row + place.rows,
                                                  place.column : place.column + place.columns].copy()),
              torch.ones(place.rows))
        for place in places
    ]  # fmt: skip
    return SimpleNamespace(
        specs={"t": spec}, places={"t": places}, shards={"t": shards}, sharding={"t": "data-parallel"}, world=1
    )


def joined_up(shards: list[Shard], shape: tuple[int, int]) -> np.ndarray:
    whole = np.zeros(shape, dtype=np.float32)
    for shard in shards:
        place = shard.place
        rows, columns = slice(place.row, place.row + place.rows), slice(place.column, place.column + place.columns)
        whole[rows, columns] = shard.weights.numpy()
    return whole


def size_of(kept: Mask) -> int:
    return choose_layout(kept.to_elements()).nbytes


@pytest.mark.parametrize("columns_cut", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {"granularity": "element"},
        {"granularity": "element", "allocation": "uniform"},
        {"granularity": {"kind": "block", "rows": 2, "columns": 4}},
        {"granularity": "row"},
        {"granularity": "row", "criterion": "frequency"},
        {"granularity": "element", "schedule": "dynamic"},
        {"granularity": "element", "criterion": "gradient"},
        {"granularity": {"kind": "block", "rows": 1, "columns": 2}, "criterion": "saliency"},
        {"granularity": "element", "criterion": "gradient", "schedule": "dynamic"},
        {"granularity": "element", "schedule": "dynamic", "allocation": "uniform"},
        {"granularity": {"kind": "block", "rows": 2, "columns": 1}, "schedule": "dynamic", "allocation": "uniform"},
        {"granularity": {"kind": "block", "rows": 1, "columns": 2}, "criterion": "saliency", "schedule": "dynamic"},
        {"granularity": "element", "density": None, "bytes": 150},
        {"granularity": "row", "density": None, "bytes": 170, "allocation": "uniform"},
        {"granularity": "element", "density": None, "bytes": 165, "allocation": "uniform"},
        {"granularity": "row", "schedule": GRADUAL | {"restarts": 1}},
        {"granularity": "element", "schedule": GRADUAL | {"restarts": 1}},
    ],
)
def test_shards_are_pruned_as_the_whole(settings: dict[str, Any], columns_cut: bool) -> None:
    recipe = Recipe(**{"density": 0.3, "schedule": GRADUAL} | settings)
    if columns_cut and (recipe.granularity.kind == "row" or recipe.allocation.kind == "uniform" or recipe.bytes):
        pytest.skip("refused: such a shard has only part of a row")
    rng = np.random.default_rng(0)
    values = rng.integers(-3, 4, (12, 8)).astype(np.float32)  # many ties
    counts = rng.integers(0, 4, 12)
    cuts = [(0, c, 12, 4) for c in (0, 4)] if columns_cut else [(0, 0, 4, 8), (4, 0, 6, 8), (10, 0, 2, 8)]
    tables = in_shards(values, cuts)
    rows = Rows(12, None, torch.zeros(8))
    ours, theirs = ShardedPruner(tables, "t", recipe, rows), Pruner(recipe, size_of)
    whole = values.copy()
    pull = rng.standard_normal((12, 8)).astype(np.float32)
    for progress in (0.0, 0.25, 0.5, 0.75, 1.0):
        for shard, each in zip(ours.shards, ours.pulls, strict=False):
            place = shard.place
            each.add_(torch.from_numpy(pull[place.row : place.row + place.rows, place.column : place.column + 8][
                :, : place.columns]))  # fmt: skip
        ours.step(progress, counts)
        pulled = pull if progress else whole  # nothing has pulled at 0: v² decides, as g² and |v g| do where g is v
        evidence = Evidence(whole, counts.astype(np.float64), partial(np.copy, pulled), partial(np.copy, pulled))
        decided = theirs.step(evidence, progress)
        kept = np.ones((12, 8), dtype=bool) if theirs.kept is None else theirs.kept.to_dense()
        whole = whole * kept if decided else whole
        np.testing.assert_allclose(joined_up(ours.shards, (12, 8)), whole, atol=2 * ALIVE)
        if not ours.pulls:
            assert rows.present().tolist() == kept.any(axis=1).tolist()
        groups = recipe.granularity.reduce(kept.astype(float))
        assert recipe.schedule.kind != "dynamic" or np.count_nonzero(groups) == round(0.3 * groups.size)
    assert recipe.bytes is None or recipe.bytes - 40 < size_of(Mask.from_dense(kept)) <= recipe.bytes
    dead = ~kept.any(axis=1)
    for shard in ours.shards if not columns_cut else []:
        own = dead[shard.place.row : shard.place.row + shard.place.rows]
        assert shard.state.numpy()[own].tolist() == [0.0] * int(own.sum())


def test_the_ranks_files_together_take_what_the_budget_says(
    settings: dict[str, Any], launch: Any, tmp_path: Path
) -> None:
    sides = {
        "users": {"sharding": "data-parallel", "recipe": {"bytes": 2000, "schedule": "oneshot"}},
        "items": {"recipe": {"bytes": 900, "criterion": "gradient", "schedule": GRADUAL}},
    }
    launch(2, "train", settings | sides | {"value_type": "int8", "prune_every": 3}).check()
    summary = json.loads((tmp_path / "run" / "training.json").read_text())
    planned = {table.name: table for table in planned_tables(TrainConfig.parse(summary["settings"]), 260, 120)}
    for side, table in (("users", "user_table"), ("items", "item_table")):
        most = sides[side]["recipe"]["bytes"]
        files = sum(load_table(file).nbytes for file in (tmp_path / "run" / table).glob("*.safetensors"))
        assert most - 10 < files == summary["packed"][table]["nbytes"] <= most
        assert most - 10 < planned[table].served_bytes <= most


def test_rows_go_to_those_who_deserve_them() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    tables = in_shards(values, [(0, 0, 3, 4)])
    rows = Rows(6, torch.tensor([0, 1, 2, -1, -1, -1], dtype=torch.int16), torch.zeros(4))
    budget = RowBudget(tables, "t", Budget(rows=3, every=1, decay=0.5), rows)

    def seen(*ids: int) -> None:
        budget.watch(torch.tensor(ids), torch.zeros(len(ids), 4))

    with joined(10):
        seen(0, 0, 4, 4, 4, 2, 1)
        budget.update()
        # Utilities 2 1 1 0 3 0: ids 4 and 0, and 1 before 2 as it is lower. Id 2 gives its row to 4.
        assert rows.remap.tolist() == [0, 1, -1, -1, 2, -1]
        mean = values[:2].mean(axis=0)
        np.testing.assert_array_equal(tables.shards["t"][0].weights[2].numpy(), mean)
        np.testing.assert_array_equal(rows.fallback.numpy(), mean)
        assert tables.shards["t"][0].state.tolist() == [1.0, 1.0, 0.0]
        assert budget.moved == 1
        seen(5, 5, 5, 5)
        budget.update()  # 1, 0.5, 0.5, 0, 1.5, 4: 5 takes the row of 1
        assert rows.remap.tolist() == [0, -1, -1, -1, 2, 1]
        assert budget.utility.tolist() == [1.0, 0.5, 0.5, 0.0, 1.5, 4.0]
        # An id without a row is answered by the fallback, and is not asked for.
        found, positions = rows.find(torch.tensor([3, 5, 0]))
        assert (found.tolist(), positions.tolist()) == ([1, 0], [1, 2])
        vectors = rows.spread(torch.ones(2, 4), positions, 3)
        np.testing.assert_array_equal(vectors[0].numpy(), rows.fallback.numpy())

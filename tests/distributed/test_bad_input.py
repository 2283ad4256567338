"""What cannot work ends soon on every rank, with one message that says which rank and why."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from recsparse.distributed.config import TrainConfig
from recsparse.errors import ConfigError
from recsparse.interactions import Interactions, write
from recsparse.interactions import store as storage


def in_many_groups(directory: Path, monkeypatch: pytest.MonkeyPatch, item: int | None = None, value: float = 1) -> Path:
    """A dataset in row groups of very different sizes; the last one has the ``value``, and may name any ``item``."""
    counts = [1, 30, 2, 0, 1, 25, 3, 1]
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices = np.concatenate([np.arange(count) for count in counts]).astype(np.int32)
    values = np.append(np.ones(len(indices) - 1, np.float32), np.float32(value))
    matrix = sp.csr_array((values, indices, indptr), shape=(len(counts), 40))
    monkeypatch.setattr(storage, "GROUP_ENTRIES", 4)
    write(Interactions.from_csr(matrix), directory)
    if item is not None:
        file = directory / "interactions" / "part-00000.parquet"
        table = pq.read_table(file)
        lists = table["items"].to_pylist()
        lists[-1] = [item]
        bad = table.set_column(1, table.schema.field("items"), pa.array(lists, table.schema.field("items").type))
        with pq.ParquetWriter(file, table.schema) as writer:
            for row in range(len(bad)):
                writer.write_table(bad.slice(row, 1))
    return directory


def test_every_rank_refuses_with_the_same_words(
    settings: dict[str, Any], launch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = settings | {"epochs": 1, "checkpoint_every": 2, "keep": 9, "output": str(tmp_path / "saved")}
    launch(2, "train", saved).check()
    copy = shutil.copytree(settings["data"], tmp_path / "other data")
    info = json.loads((copy / "train" / "dataset.json").read_text())
    (copy / "train" / "dataset.json").write_text(json.dumps(info | {"name": "other"}))
    for name in ("lacks", "alien", "alien run"):
        shutil.copytree(saved["output"], tmp_path / name)
        if name != "alien run":
            (tmp_path / name / "training.json").unlink()
    shard = next((tmp_path / "lacks" / "checkpoints" / "step-00000006").glob("shard-00002*"))
    shard.unlink()
    wrong = in_many_groups(tmp_path / "wrong", monkeypatch, item=99)
    disliked = in_many_groups(tmp_path / "disliked", monkeypatch, value=-2)
    expected = {
        "rank 1 has another configuration than rank 0": [settings, settings | {"learning_rate": 0.1}],
        "rank 1 has another data set than rank 0": [settings, settings | {"data": str(copy)}],
        f"lacks its shard {shard.name}": [saved | {"output": str(tmp_path / "lacks")}],
        "checkpoint of another model": [saved | {"dim": 8, "output": str(tmp_path / "alien")}],
        "holds a run of other settings": [saved | {"dim": 8, "output": str(tmp_path / "alien run")}],
        r"rank 1: .*row group 7: item 99 is out of range, there are 40 items": [settings | {"data": str(wrong)}],
        r"rank 0: .*row group 4: the value -2.0 of item 0 is negative": [settings | {"data": str(disliked)}],
        "rank 1: .*absent is not a dataset directory|rank 1: .*absent": [settings, settings | {"data": "absent"}],
        "2 ranks for 1 streams": [settings | {"streams": 1}],
        "Blocks of 7 x 4 do not tile": [
            settings | {"items": {"recipe": {"density": 0.5, "granularity": {"kind": "block", "rows": 7}}}}
        ],
        "budget of item_table is 500 rows for 120 ids": [settings | {"items": {"budget": {"rows": 500}}}],
        "training diverged; lower learning_rate": [
            settings | {"learning_rate": 1e6, "output": str(tmp_path / "diverged")}
        ],
    }
    ranks = launch(2, "refuse", list(expected.values()))
    ranks.check()
    said = [re.findall(r"^case (\d+): (.*)$", text, re.MULTILINE) for text in ranks.said]
    assert said[0] == said[1]
    assert len(said[0]) == len(expected)
    for (_, message), pattern in zip(said[0], expected, strict=True):
        assert re.search(pattern, message), (pattern, message)


def test_uneven_groups_empty_streams_and_more_ranks_than_users_train(
    settings: dict[str, Any], launch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uneven = in_many_groups(tmp_path / "uneven", monkeypatch)
    monkeypatch.setattr(storage, "GROUP_ENTRIES", 1 << 18)
    wide = write(Interactions.from_csr(sp.csr_array([[1, 1, 0, 0, 0], [0, 0, 0, 1, 1]])), tmp_path / "wide")
    configs = [
        settings | {"data": str(data), "output": str(tmp_path / f"{data.name}-run"), "batch_size": 8}
        for data in (uneven, wide)
    ]
    launch(3, "train", *configs).check()
    losses = pq.read_table(tmp_path / "uneven-run" / "losses.parquet")
    assert sum(losses["samples"].to_pylist()) == 2 * 63  # every interaction once an epoch
    assert json.loads((tmp_path / "wide-run" / "training.json").read_text())["ranks"] == 3


def test_a_rank_that_dies_is_noticed(settings: dict[str, Any], launch: Any) -> None:
    ranks = launch(2, "lose", settings, 3)
    assert ranks.codes == [3, -9]
    assert "Rank 0 lost another rank" in ranks.said[0]


def test_a_rank_that_never_comes_is_given_up(settings: dict[str, Any], launch: Any) -> None:
    ranks = launch(2, "lose", settings | {"timeout": 3}, 3, started=1)
    assert ranks.codes == [3]
    assert "Rank 0 waited 3 seconds for 2 ranks to meet" in ranks.said[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 6}, "multiple of 4"),
        ({"items": {"budget": {"rows": 5}, "placement": "balanced"}}, "leave placement as-is"),
        ({"items": {"sharding": "column-wise", "recipe": {"density": 0.5, "granularity": "row"}}}, "part of a row"),
        ({"items": {"recipe": {"density": 0.5, "schedule": "tickets"}}}, "schedule tickets works on one machine"),
        (
            {"items": {"recipe": {"density": 0.5, "allocation": "sensitivity"}}},
            "allocation sensitivity works on one machine",
        ),
        ({"items": {"recipe": {"bytes": 500}, "sharding": "table-wise"}}, "use sharding row-wise or data-parallel"),
        ({"items": {"recipe": {"bytes": 500, "schedule": "dynamic"}}}, "give density, not bytes"),
        ({"items": {"recipe": {"bytes": 500}}, "item_features": {}, "optimiser": "adagrad"}, "cannot promise bytes"),
        ({"items": {"recipe": {"density": 0.5, "criterion": "loss-increase"}}}, "no least-squares curvature"),
        ({"items": {"recipe": {"density": 0.5}, "budget": {"rows": 5}}}, "not both"),
        ({"item_features": {}}, "item_features need optimiser adagrad"),
        ({"item_features": {"budget": {"rows": 5}}, "optimiser": "adagrad"}, "recipe instead of a budget"),
        ({"items": {"recipe": {"density": 0.5}}, "patience": 1}, "leave out patience or the recipe"),
        ({"itmes": {}}, "there is no such key"),
    ],
)
def test_settings_are_refused_before_anything_starts(settings: dict[str, Any], change: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        TrainConfig.parse(settings | change)

"""What ranks do in the tests of sharded training: each function is a case, run in every process by name."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recsparse.distributed.checkpoint import Checkpoints
from recsparse.distributed.config import TrainConfig
from recsparse.distributed.process import joined
from recsparse.distributed.run import data_digest, train_here
from recsparse.distributed.run import train as train_all
from recsparse.distributed.streams import scan
from recsparse.distributed.trainer import Trainer
from recsparse.errors import RecsparseError


def train(*configs: dict[str, Any]) -> None:
    """Train one configuration after the other."""
    with joined(60) as (rank, world):
        for config in configs:
            train_here(TrainConfig.parse(config), rank, world)


def reshard(config: dict[str, Any], checkpoint: str, output: str) -> None:
    """Load a checkpoint on this many ranks, write what each rank then has and every lookup, and train to the end."""
    parsed = TrainConfig.parse(config)
    with joined(60) as (rank, world):
        data = parsed.data / "train"
        contents = scan(data, rank, world)
        trainer = Trainer.build(parsed, data, contents, rank, world)
        checkpoints = Checkpoints(Path(output) / "none", f"{parsed.identity()}-{data_digest(data)}", 1)
        position = trainer.resume(checkpoints, Path(checkpoint))
        found: dict[str, Any] = {"position": [position.epoch, position.step, position.done]}
        for name, rows in trainer.tables.rows.items():
            found[f"{name}/lookup"] = trainer.tables.fetch(name, torch.arange(rows.n_ids)).numpy()
            found[f"{name}/remap"] = np.arange(rows.n_ids) if rows.remap is None else rows.remap.numpy()
            masks = trainer.pruners[name].masks if name in trainer.pruners else []
            for number, shard in enumerate(trainer.tables.sharded.shards[name]):
                place = f"{name}/{shard.place.row}/{shard.place.column}"
                found[f"{place}/weights"] = shard.weights.numpy()
                if shard.state is not None:
                    found[f"{place}/state"] = shard.state.numpy()
                if masks:
                    found[f"{place}/mask"] = masks[number].numpy()
        for name, budget in trainer.budgets.items():
            found[f"{name}/utility"] = budget.utility.numpy()
        np.savez(Path(output) / f"rank-{rank}-of-{world}.npz", **found)
        train_here(parsed, rank, world)


def refuse(cases: list[list[dict[str, Any]]]) -> None:
    """Train with settings that no rank, or not this one, can use: every rank must be told the same, and go on."""
    with joined(60) as (rank, world):
        for number, by_rank in enumerate(cases):
            try:
                train_here(TrainConfig.parse(by_rank[min(rank, len(by_rank) - 1)]), rank, world)
            except RecsparseError as error:
                sys.stdout.write(f"case {number}: {error}\n")
            else:
                raise SystemExit(f"case {number} should not have worked")


def lose(config: dict[str, Any], at: int) -> None:
    """Rank 1 is killed at a step; rank 0 must notice and say so."""
    original = Trainer.step

    def step(self: Trainer, batch: Any, done: int) -> None:
        if done == at and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, batch, done)

    Trainer.step = step  # type: ignore[method-assign]
    try:
        train_all(TrainConfig.parse(config))
    except RecsparseError as error:
        sys.stdout.write(f"refused: {error}\n")
        sys.stdout.flush()
        os._exit(3)  # the process group of the dead cannot be taken down in order


if __name__ == "__main__":
    case, arguments = sys.argv[1:]
    globals()[case](*json.loads(arguments))

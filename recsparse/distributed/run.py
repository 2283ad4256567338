"""One training from data to packed tables, on this rank."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
import torch.distributed as dist

from recsparse.distributed.checkpoint import Checkpoints, Position
from recsparse.distributed.config import TrainConfig
from recsparse.distributed.export import export
from recsparse.distributed.process import agreed, check_equal, gather, joined, lost_rank_named
from recsparse.distributed.streams import scan
from recsparse.distributed.traffic import copy_bytes
from recsparse.distributed.trainer import ITEMS, USERS, Judge, Tell, Trainer
from recsparse.distributed.validation import Validation
from recsparse.errors import ConfigError
from recsparse.files import atomic_file
from recsparse.interactions import Holdout, Interactions, read
from recsparse.interactions.interactions import Rows
from recsparse.interactions.reading import row_groups
from recsparse.interactions.store import read_table

SUMMARY = "training.json"
LOSSES = "losses.parquet"


def train(config: TrainConfig, tell: Tell | None = None) -> dict[str, Any]:
    """Train, export and measure; every rank that torchrun started calls it, or one process alone.

    Continues from the last checkpoint in ``config.output`` if there is one of this model. ``tell`` hears how many steps
    of how many are done, and the metrics of all epochs so far.

    Returns:
        What ``training.json`` holds: ranks, sharding, samples a second, bytes sent a step, balance, metrics after each
        epoch and of the tables in the end.

    Raises:
        ConfigError: settings that cannot be met.
        DataError: on all ranks together, if data, settings or a checkpoint of any rank cannot be used.
    """
    with joined(config.timeout, config.threads) as (rank, world), lost_rank_named():
        return train_here(config, rank, world, tell)


def train_here(config: TrainConfig, rank: int, world: int, tell: Tell | None = None) -> dict[str, Any]:
    """:func:`train` among ranks that have met already."""
    with agreed():
        data = _training_part(config.data)
        digest = data_digest(data)
    check_equal("configuration", config.digest())
    check_equal("data set", digest)
    identity = f"{config.identity()}-{digest}"
    if (done := _finished(config, identity)) is not None:
        return done
    with agreed():
        held_out = _held_out(config)
    contents = scan(data, rank, world)
    with agreed():
        trainer = Trainer.build(config, data, contents, rank, world)
    checkpoints = Checkpoints(config.output / "checkpoints", identity, config.keep)
    best = None if config.patience is None else Checkpoints(config.output / "best", identity, keep=1)
    # The best epoch's is a whole checkpoint too: where it is the newer one, nothing after it was lost.
    saved = [path for each in (checkpoints, best) if each is not None and (path := each.latest()) is not None]
    newest = max(saved, key=lambda path: path.name, default=None)
    latest = gather(None if newest is None else [newest.parent.name, newest.name])[0]
    position = Position(0, 0, 0)
    if latest is not None:
        position = trainer.resume(checkpoints, config.output.joinpath(*latest))
    judge: Judge | None = None
    if not isinstance(held_out, str):
        with agreed():
            judge = Validation(
                data, contents, (USERS, ITEMS), *held_out, config.metrics, rank=rank, world=world
            ).measure
    began = time.perf_counter()
    trainer.run(checkpoints, position, judge=judge, best=best, tell=tell)
    summary = _summary(trainer, position, time.perf_counter() - began, world) | {"digest": identity}
    summary["settings"] = config.model_dump(mode="json")
    summary |= _measured(trainer, held_out)
    summary["packed"] = {
        name: export(trainer.tables, name, config.output / name, value_type=config.value_type)
        for name in trainer.tables.rows
    }
    if rank == 0:
        _write(config.output, trainer, summary)
    dist.barrier()
    return summary


def data_digest(directory: Path) -> str:
    """Identify a dataset by ``dataset.json``, users, items and, of each part, size and footer, without reading all."""
    digest = hashlib.sha256((directory / "dataset.json").read_bytes())
    for name in ("users", "items"):
        with (directory / f"{name}.parquet").open("rb") as ids:
            digest.update(hashlib.file_digest(ids, "sha256").digest())
    for file in sorted({group.file for group in row_groups(directory)}):
        with file.open("rb") as part:
            size = file.stat().st_size
            part.seek(max(0, size - (1 << 16)))
            digest.update(f"{file.name} {size} ".encode() + part.read())
    return digest.hexdigest()


def _training_part(directory: Path) -> Path:
    return directory / "train" if (directory / "split.json").exists() else directory


def _finished(config: TrainConfig, identity: str) -> dict[str, Any] | None:
    """What an earlier run of the same settings left, so that a restart after the end has nothing to do."""
    with agreed():
        file = config.output / SUMMARY
        if not file.exists():
            return None
        summary: dict[str, Any] = json.loads(file.read_text())
        if summary["digest"] != identity:
            raise ConfigError(
                f"{config.output} holds a run of other settings or data; choose another output directory."
            )
        return summary


def _summary(trainer: Trainer, start: Position, seconds: float, world: int) -> dict[str, Any]:
    steps = len(trainer.losses) - start.done
    sharded = trainer.tables.sharded
    asked = {table: [each[table] for each in gather(trainer.asked)] for table in trainer.asked}
    copies = sum(
        copy_bytes(spec.rows, spec.dim, world) for name, spec in sharded.specs.items()
        if sharded.sharding[name] == "data-parallel"
    )  # fmt: skip
    samples = float(trainer.samples[start.done :].sum())
    return {
        "ranks": world,
        "steps": len(trainer.losses),
        "resumed_at": start.done,
        "seconds": seconds,
        "validation_seconds": trainer.judging,
        "samples_per_second": samples / (seconds - trainer.judging) if samples else 0.0,
        "sharding": sharded.sharding,
        "shards": {
            table: [[place.rank, place.row, place.column, place.rows, place.columns] for place in places]
            for table, places in sharded.places.items()
        },
        "bytes_sent_per_step": [each / max(1, steps) + copies for each in gather(trainer.traffic.sent)],
        "rows_asked_per_step": {table: [n / max(1, trainer.watched) for n in each] for table, each in asked.items()},
        "balance": {table: max(each) / (sum(each) / world) if sum(each) else 1.0 for table, each in asked.items()},
        "bytes_held": gather(trainer.nbytes),
        "remap_bytes": {table: rows.nbytes for table, rows in trainer.tables.rows.items()},
        "rows_present": {table: float(rows.present().double().mean()) for table, rows in trainer.tables.rows.items()},
        "budget_update_seconds": sum(trainer.update_seconds) / max(1, len(trainer.update_seconds)),
        "loss": float(trainer.losses[-1] / trainer.samples[-1]),
    }


def _held_out(config: TrainConfig) -> tuple[Holdout, Rows] | str:
    """The split's validation users and their training rows, -1 if not trained on; or why there are none."""
    note = "the data is not a split, so there are no validation users"
    if (config.data / "split.json").exists():
        parts = config.data / "validation"
        holdout = Holdout(read(parts / "history"), read(parts / "target"))
        users, items = (read_table(config.data / "train" / f"{name}.parquet") for name in ("users", "items"))
        trained = Interactions(sp.csr_array((users.num_rows, items.num_rows), dtype=np.float32), users, items)
        rows = trained.user_rows(holdout.target.user_ids)
        return holdout, rows
    if config.patience is not None:
        raise ConfigError(f"patience is {config.patience}, but {note}; leave it out.")
    return note


def _measured(trainer: Trainer, held_out: tuple[Holdout, Rows] | str) -> dict[str, Any]:
    """The metrics of the tables that are exported, and those after each epoch."""
    if isinstance(held_out, str):
        return {"metrics": {}, "metrics_note": held_out, "validation": []}
    kept = len(trainer.validation) if trainer.config.patience is None else trainer.best_epoch
    return {"metrics": trainer.validation[kept - 1], "epoch": kept, "validation": trainer.validation}


def _write(output: Path, trainer: Trainer, summary: dict[str, Any]) -> None:
    with atomic_file(output / LOSSES) as partial:
        pq.write_table(pa.table({"loss": trainer.losses.numpy(), "samples": trainer.samples.numpy()}), partial)
    with atomic_file(output / SUMMARY) as partial:
        partial.write_text(json.dumps(summary, indent=1))

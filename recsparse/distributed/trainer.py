"""The training loop: every rank takes its part of each batch; tables step inside the backward pass."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsparse.distributed.budget import RowBudget
from recsparse.distributed.checkpoint import Checkpoints, Position, State, row_mesh, shard_state
from recsparse.distributed.config import TableSettings, TrainConfig
from recsparse.distributed.losses import sample_losses
from recsparse.distributed.process import device, total
from recsparse.distributed.pruning import ShardedPruner
from recsparse.distributed.rows import LogicalTables, Rows, balanced_placement, initial_rows, narrow
from recsparse.distributed.sharded import Shard, ShardedTables, TableSpec
from recsparse.distributed.streams import Batch, Contents, Streams
from recsparse.distributed.traffic import Traffic
from recsparse.errors import ConfigError, DataError

USERS, ITEMS = "user_table", "item_table"
Tell = Callable[[int, int], None]


@dataclass
class Trainer:
    """A sharded matrix factorisation in training.

    Attributes:
        config: its settings.
        contents: of the training data.
        streams: this rank's part of every batch.
        tables: user and item vectors by id.
        pruners, budgets: of those tables that have one.
        losses, samples: sums of losses and numbers of samples of each step done, over all ranks up to ``summed`` steps.
        asked: rows that lookups asked of this rank, by table: distinct rows of a step, summed over steps.
        traffic: bytes sent.
    """

    config: TrainConfig
    contents: Contents
    streams: Streams
    tables: LogicalTables
    pruners: dict[str, ShardedPruner]
    budgets: dict[str, RowBudget]
    losses: Tensor
    samples: Tensor
    summed: int = 0
    asked: dict[str, int] = field(default_factory=lambda: {USERS: 0, ITEMS: 0})
    traffic: Traffic = field(default_factory=Traffic)
    update_seconds: list[float] = field(default_factory=list)

    @classmethod
    def build(cls, config: TrainConfig, data: Path, contents: Contents, rank: int, world: int) -> "Trainer":
        """Shard and initialise the tables; every rank calls it together."""
        streams = Streams(
            data, contents, streams=config.streams, batch_size=config.batch_size, n_negatives=config.n_negatives,
            seed=config.random_state, rank=rank, world=world,
        )  # fmt: skip
        specs = [
            _spec(USERS, config.users, len(contents.users), config.dim, 1.0),
            _spec(ITEMS, config.items, len(contents.items), config.dim, 1.0 + config.n_negatives),
        ]
        sharded = ShardedTables(
            specs, optimiser=config.optimiser, learning_rate=config.learning_rate, batch_size=config.batch_size
        )
        std = config.init_std / np.sqrt(config.dim)
        for shard in (shard for shards in sharded.shards.values() for shard in shards):
            _initialise(shard, config.random_state, config.dim, std)
        pairs = ((USERS, config.users, contents.users), (ITEMS, config.items, contents.items))
        rows = {name: _rows(settings, counts, config.dim) for name, settings, counts in pairs}
        steps = config.epochs * streams.steps
        return cls(
            config, contents, streams, LogicalTables(sharded, rows),
            {n: ShardedPruner(sharded, n, s.recipe, rows[n]) for n, s, _ in pairs if s.recipe is not None},
            {n: RowBudget(sharded, n, s.budget, rows[n]) for n, s, _ in pairs if s.budget is not None},
            torch.zeros(steps, dtype=torch.float64), torch.zeros(steps, dtype=torch.float64),
        )  # fmt: skip

    @property
    def steps(self) -> int:
        """Steps in all."""
        return len(self.losses)

    def step(self, batch: Batch, done: int) -> None:
        """Train on this rank's part of the batch of step ``done``; every rank calls it together."""
        config = self.config
        users, items = torch.from_numpy(batch.users), torch.from_numpy(batch.items).view(-1)
        ids = {USERS: users, ITEMS: items}
        found = self.tables.lookup(ids)
        for name, budget in self.budgets.items():
            budget.watch(ids[name], found[name])
        vectors = found[ITEMS].view(len(users), 1 + config.n_negatives, config.dim)
        losses = sample_losses(
            config.loss, found[USERS], vectors, reg=config.reg, negative_weight=config.negative_weight
        )
        loss = losses.sum()
        self.tables.sharded.descend(loss)
        self.losses[done], self.samples[done] = loss.detach(), len(losses)
        for pruner in self.pruners.values():
            pruner.after_step()
        for name, shards in self.tables.sharded.shards.items():
            self.asked[name] += sum(len(torch.unique(shard.touched)) for shard in shards)
        self._prune(done + 1)

    def _prune(self, done: int) -> None:
        if done % self.config.prune_every == 0 or done == self.steps:
            for name, pruner in self.pruners.items():
                counts = self.contents.users if name == USERS else self.contents.items
                pruner.step(done / self.steps, self._by_row(name, counts))
        for budget in self.budgets.values():
            if done and done % budget.budget.every == 0:
                budget.update()
                self.update_seconds.append(budget.seconds)

    def _by_row(self, table: str, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        remap = self.tables.rows[table].remap
        if remap is None:
            return counts
        by_row = np.zeros(self.tables.sharded.specs[table].rows, dtype=np.int64)
        has = remap >= 0
        by_row[remap[has].long().numpy()] = counts[has.numpy()]
        return by_row

    def run(self, checkpoints: Checkpoints, start: Position, tell: Tell | None = None) -> None:
        """Train from a position to the end; ``tell`` hears how many steps of how many are done."""
        done = start.done
        if done == 0:
            self._prune(0)
        every = self.config.checkpoint_every
        for epoch in range(start.epoch, self.config.epochs):
            first = start.step if epoch == start.epoch else 0
            for step in range(first, self.streams.steps):
                with self.traffic.counted():
                    self.step(self.streams.batch(epoch, step), done)
                done += 1
                if tell is not None:
                    tell(done, self.steps)
                if (every and done % every == 0) or done == self.steps:
                    last = step + 1 == self.streams.steps
                    position = Position(epoch + 1, 0, done) if last else Position(epoch, step + 1, done)
                    self.sum_losses(done)
                    checkpoints.save(self.state(), position, self._about())
        checkpoints.wait()

    def sum_losses(self, done: int) -> None:
        """Sum the steps' losses over ranks up to ``done``; a sum that is not finite stops the run.

        Raises:
            DataError: training diverged.
        """
        for values in (self.losses, self.samples):
            values[self.summed : done] = total(values[self.summed : done].clone())
        bad = torch.nonzero(~torch.isfinite(self.losses[self.summed : done]))
        if len(bad):
            raise DataError(
                f"The loss of step {self.summed + int(bad[0])} is {float(self.losses[self.summed + int(bad[0])])}: "
                f"training diverged; lower learning_rate (now {self.config.learning_rate})."
            )
        self.summed = done

    def state(self) -> State:
        """Everything a checkpoint holds, as tensors that share memory with the trainer's where they can."""
        mesh = row_mesh()
        sharded = self.tables.sharded
        every = list(self.tables.rows)
        state = shard_state(sharded, every, mesh, "weights", lambda shard: shard.weights)
        if self.config.optimiser == "adagrad":
            state |= shard_state(sharded, every, mesh, "state", _sums)
        for name, pruner in self.pruners.items():
            masks = [_packed(mask) for mask in pruner.masks]
            state |= shard_state(sharded, [name], mesh, "mask", _beside(pruner.shards, masks))
            if pruner.dynamic:
                state |= shard_state(sharded, [name], mesh, "pull", _beside(pruner.shards, pruner.pulls))
        for name, rows in self.tables.rows.items():
            state[f"{name}.fallback"] = rows.fallback
            if name in self.budgets or rows.remap is not None:
                state[f"{name}.remap"] = _full_remap(rows)
        for name, budget in self.budgets.items():
            state[f"{name}.utility"] = budget.utility
            state[f"{name}.gathered"] = total(budget.gathered.clone())
        return state | {"losses": self.losses, "samples": self.samples}

    def resume(self, checkpoints: Checkpoints, path: Path) -> Position:
        """Continue from a checkpoint, of any number of ranks; every rank calls it together."""
        manifest = checkpoints.read_manifest(path)
        kinds = {name: _columns(self.tables.sharded, name) for name in self.tables.rows}
        if manifest["columns"] != kinds:
            raise ConfigError(
                f"{path} has tables cut into columns at {manifest['columns']}, this run at {kinds}; column-wise tables "
                "stay column-wise."
            )
        for name in manifest["remapped"]:
            rows = self.tables.rows[name]
            rows.remap = _full_remap(rows)
        state = self.state()
        checkpoints.load(path, state)
        for name, rows in self.tables.rows.items():
            if f"{name}.remap" in state:
                rows.remap = narrow(state[f"{name}.remap"], self.tables.sharded.specs[name].rows)
        for name, budget in self.budgets.items():
            budget.gathered = (
                state[f"{name}.gathered"] if torch.distributed.get_rank() == 0 else budget.gathered.zero_()
            )
        for name, pruner in self.pruners.items():
            pruner.density = manifest["densities"][name]
            for number, shard in enumerate(pruner.shards):
                packed = _local(state[f"{name}.mask.{shard.place.column}"])
                pruner.masks[number] = _unpacked(packed, shard.place.columns)
        position = Position(**manifest["position"])
        self.summed = position.done
        return position

    def _about(self) -> dict[str, Any]:
        return {
            "columns": {name: _columns(self.tables.sharded, name) for name in self.tables.rows},
            "remapped": [name for name, rows in self.tables.rows.items() if rows.remap is not None],
            "densities": {name: pruner.density for name, pruner in self.pruners.items()},
        }


def _spec(name: str, settings: TableSettings, n_ids: int, dim: int, pooling: float) -> TableSpec:
    rows = n_ids if settings.budget is None else settings.budget.rows
    if rows > n_ids:
        raise ConfigError(f"The row budget of {name} is {rows} rows for {n_ids} ids; it needs none.")
    return TableSpec(name, rows, dim, settings.sharding, pooling)


def _rows(settings: TableSettings, counts: npt.NDArray[np.int64], dim: int) -> Rows:
    remap = None
    if settings.placement == "balanced":
        remap = balanced_placement(counts)
    if settings.budget is not None:
        # The first owners are spread evenly over the ids: rows keep their order, and users stay near their rank.
        remap = torch.full((len(counts),), -1)
        rows = torch.arange(settings.budget.rows)
        remap[rows * len(counts) // settings.budget.rows] = rows
        remap = narrow(remap, settings.budget.rows)
    return Rows(len(counts), remap, torch.zeros(dim, device=device()))


def _initialise(shard: Shard, seed: int, dim: int, std: float) -> None:
    place = shard.place
    values = initial_rows(seed, shard.table, place.row, place.row + place.rows, dim, std)
    shard.weights.copy_(torch.from_numpy(values[:, place.column : place.column + place.columns]))


def _columns(tables: ShardedTables, table: str) -> list[int]:
    return sorted({place.column for place in tables.places[table]})


def _full_remap(rows: Rows) -> Tensor:
    return torch.arange(rows.n_ids, dtype=torch.int32) if rows.remap is None else rows.remap.int()


def _beside(shards: list[Shard], tensors: list[Tensor]) -> Callable[[Shard], Tensor]:
    found = {id(shard): tensor for shard, tensor in zip(shards, tensors, strict=True)}
    return lambda shard: found[id(shard)]


def _sums(shard: Shard) -> Tensor:
    if shard.state is None:
        raise ConfigError(f"A shard of {shard.table} has no optimiser state; this must not happen, please report it.")
    return shard.state


def _packed(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.numpy(), axis=1))


def _unpacked(packed: Tensor, columns: int) -> Tensor:
    return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=columns).view(np.bool_))


def _local(tensor: Tensor) -> Tensor:
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local

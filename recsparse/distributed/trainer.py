"""The training loop: every rank takes its part of each batch; tables step inside the backward pass."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsparse.distributed.budget import RowBudget
from recsparse.distributed.checkpoint import Checkpoints, Position, State, row_mesh, shard_state
from recsparse.distributed.config import TableSettings, TrainConfig
from recsparse.distributed.features import Features
from recsparse.distributed.losses import sample_losses
from recsparse.distributed.process import device, total
from recsparse.distributed.pruning import ShardedPruner
from recsparse.distributed.rows import LogicalTables, Rows, balanced_placement, initial_rows, narrow
from recsparse.distributed.sharded import Shard, ShardedTables, TableSpec
from recsparse.distributed.streams import Batch, Contents, Counts, Streams
from recsparse.distributed.traffic import Traffic
from recsparse.errors import ConfigError, DataError
from recsparse.interactions.store import read_table

USERS, ITEMS = "user_table", "item_table"
USER_FEATURES, ITEM_FEATURES = "user_feature_table", "item_feature_table"
WATCHED = 10
"""One step in so many is looked at for which rows it asks: telling them apart takes 2 % of a step."""

PACKED = 0.9
"""The density of a table from which vectors are packed: a bitmap adds 1/32 to what is sent."""

Tell = Callable[[int, int, list[dict[str, float]]], None]
Judge = Callable[[LogicalTables], dict[str, float]]


@dataclass
class Trainer:
    """A sharded matrix factorisation in training.

    Attributes:
        config: its settings.
        contents: of the training data.
        streams: this rank's part of every batch.
        tables: user and item vectors by id.
        counts: interactions of each id of each table.
        pruners, budgets: of those tables that have one.
        losses, samples: sums of losses and numbers of samples of each step done, over all ranks up to ``summed`` steps.
        validation: metrics after each epoch done; empty where nothing is held out.
        judging: seconds that this took.
        asked: rows that lookups asked of this rank, by table: distinct rows of a step, summed over ``watched`` steps.
        traffic: bytes sent.
    """

    config: TrainConfig
    contents: Contents
    streams: Streams
    tables: LogicalTables
    counts: dict[str, Counts]
    pruners: dict[str, ShardedPruner]
    budgets: dict[str, RowBudget]
    losses: Tensor
    samples: Tensor
    summed: int = 0
    validation: list[dict[str, float]] = field(default_factory=list)
    judging: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    watched: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    update_seconds: list[float] = field(default_factory=list)

    @classmethod
    def build(cls, config: TrainConfig, data: Path, contents: Contents, rank: int, world: int) -> "Trainer":
        """Shard and initialise the tables; every rank calls it together."""
        tables, features = _tables(config, data, contents, world)
        streams = Streams(
            data, contents, streams=config.streams, batch_size=config.batch_size, n_negatives=config.n_negatives,
            seed=config.random_state, drawable=np.flatnonzero(contents.items) if ITEMS in features else None,
            rank=rank, world=world,
        )  # fmt: skip
        specs = [TableSpec(t.name, t.n_rows, config.dim, t.settings.sharding, t.pooling) for t in tables]
        sharded = ShardedTables(
            specs, optimiser=config.optimiser, learning_rate=config.learning_rate, batch_size=config.batch_size
        )
        std = config.init_std / np.sqrt(config.dim)
        for shard in (shard for shards in sharded.shards.values() for shard in shards):
            _initialise(shard, config.random_state, config.dim, std)
        rows = {table.name: table.rows(config.dim) for table in tables}
        given = [(table.name, table.settings) for table in tables]
        steps = config.epochs * streams.steps
        return cls(
            config, contents, streams, LogicalTables(sharded, rows, features),
            {table.name: table.counts for table in tables},
            {n: ShardedPruner(sharded, n, s.recipe, rows[n], config.value_type) for n, s in given if s.recipe},
            {n: RowBudget(sharded, n, s.budget, rows[n]) for n, s in given if s.budget},
            torch.zeros(steps, dtype=torch.float64), torch.zeros(steps, dtype=torch.float64),
            asked=Counter(dict.fromkeys(rows, 0)),
        )  # fmt: skip

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.config.epochs * self.streams.steps

    @property
    def nbytes(self) -> int:
        """Bytes this rank holds of the tables: weights, optimiser, masks, pulls, remaps and utilities."""
        shards = [shard for each in self.tables.sharded.shards.values() for shard in each]
        held = [shard.weights for shard in shards] + [shard.state for shard in shards if shard.state is not None]
        for pruner in self.pruners.values():
            held += pruner.masks + pruner.pulls
        for budget in self.budgets.values():
            held += [budget.utility, budget.gathered]
        return sum(tensor.nbytes for tensor in held) + sum(rows.nbytes for rows in self.tables.rows.values())

    def step(self, batch: Batch, done: int) -> None:
        """Train on this rank's part of the batch of step ``done``; every rank calls it together."""
        config = self.config
        users, items = torch.from_numpy(batch.users), torch.from_numpy(batch.items).view(-1)
        ids = {USERS: users, ITEMS: items}
        self.tables.confined = {name for name, pruner in self.pruners.items() if pruner.confines}
        self.traffic.packing = any(pruner.density < PACKED for pruner in self.pruners.values())
        found = self.tables.lookup(ids)
        for name, budget in self.budgets.items():
            budget.watch(ids[name], found[name])
        vectors = found[ITEMS].view(len(users), 1 + config.n_negatives, config.dim)
        losses = sample_losses(
            config.loss, found[USERS], vectors, reg=config.reg, negative_weight=config.negative_weight
        )
        loss = losses.sum()
        for pruner in self.pruners.values():
            pruner.before_step()
        self.tables.sharded.descend(loss)
        self.losses[done], self.samples[done] = loss.detach(), len(losses)
        for pruner in self.pruners.values():
            pruner.after_step()
        if done % WATCHED == 0:
            self.watched += 1
            for name, shards in self.tables.sharded.shards.items():
                self.asked[name] += sum(len(torch.unique(shard.touched)) for shard in shards)
        self._prune(done + 1)

    def _prune(self, done: int) -> None:
        if done % self.config.prune_every == 0 or done == self.steps:
            for name, pruner in self.pruners.items():
                pruner.step(done / self.steps, self._by_row(name))
        for budget in self.budgets.values():
            if done and done % budget.budget.every == 0:
                budget.update()
                self.update_seconds.append(budget.seconds)

    def _by_row(self, table: str) -> Counts:
        counts, remap = self.counts[table], self.tables.rows[table].remap
        if remap is None:
            return counts
        by_row = np.zeros(self.tables.sharded.specs[table].rows, dtype=np.int64)
        has = remap >= 0
        by_row[remap[has].long().numpy()] = counts[has.numpy()]
        return by_row

    def run(
        self, checkpoints: Checkpoints, start: Position, *, judge: Judge | None = None, best: Checkpoints | None = None,
        tell: Tell | None = None,
    ) -> None:  # fmt: skip
        """Train from a position to the end.

        Args:
            checkpoints: written now and then, and at the end.
            start: where to go on.
            judge: measures after each epoch.
            best: where the best epoch is kept; it is taken up in the end, and training stops when patience does.
            tell: hears how many steps of how many are done, and the metrics of all epochs.
        """
        done = start.done
        if done == 0:
            self._prune(0)
        every = self.config.checkpoint_every
        for epoch in range(start.epoch, self.config.epochs):
            if self._is_stale():
                break
            first = start.step if epoch == start.epoch else 0
            for step in range(first, self.streams.steps):
                with self.traffic.counted():
                    self.step(self.streams.batch(epoch, step), done)
                done += 1
                last = step + 1 == self.streams.steps
                position = Position(epoch + 1, 0, done) if last else Position(epoch, step + 1, done)
                if last and judge is not None:
                    self.sum_losses(done)  # a training that diverged says so, not that its scores are odd
                    began = time.perf_counter()
                    self.validation.append(judge(self.tables))
                    self.judging += time.perf_counter() - began
                    if best is not None and self.best_epoch == epoch + 1:
                        best.save(self.state(), position, self._about())
                if tell is not None:
                    tell(done, self.steps, self.validation)
                if (every and done % every == 0) or done == self.steps or (last and self._is_stale()):
                    self.sum_losses(done)
                    checkpoints.save(self.state(), position, self._about())
        checkpoints.wait()
        if best is not None:
            best.wait()
            self._take_up(best)
        self.losses, self.samples = self.losses[: self.summed], self.samples[: self.summed]

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, of the best first metric; the earliest of several."""
        values = [epoch[self.config.metrics[0]] for epoch in self.validation]
        return 1 + values.index(max(values))

    def _is_stale(self) -> bool:
        patience = self.config.patience
        return patience is not None and bool(self.validation) and len(self.validation) - self.best_epoch >= patience

    def _take_up(self, best: Checkpoints) -> None:
        path = best.latest()
        if path is None or self.best_epoch == len(self.validation):
            return
        losses, samples = self.losses.clone(), self.samples.clone()
        self._load(best, path)
        self.losses, self.samples = losses, samples

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
            if pruner.pulled:
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
        manifest = self._load(checkpoints, path)
        position = Position(**manifest["position"])
        self.summed, self.validation = position.done, manifest["validation"]
        return position

    def _load(self, checkpoints: Checkpoints, path: Path) -> dict[str, Any]:
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
        return manifest

    def _about(self) -> dict[str, Any]:
        return {
            "columns": {name: _columns(self.tables.sharded, name) for name in self.tables.rows},
            "remapped": [name for name, rows in self.tables.rows.items() if rows.remap is not None],
            "validation": list(self.validation),  # the manifest is written while training goes on
            "densities": {name: pruner.density for name, pruner in self.pruners.items()},
        }


@dataclass(frozen=True)
class _Table:
    """One table to be, with the interactions of each id; ids without any have no row if ``warm_only``."""

    name: str
    settings: TableSettings
    counts: Counts
    pooling: float
    warm_only: bool = False

    @property
    def n_rows(self) -> int:
        """Physical rows."""
        n_ids = int(np.count_nonzero(self.counts)) if self.warm_only else len(self.counts)
        budget = self.settings.budget
        if budget is not None and budget.rows > n_ids:
            raise ConfigError(f"The row budget of {self.name} is {budget.rows} rows for {n_ids} ids; it needs none.")
        return n_ids if budget is None else budget.rows

    def rows(self, dim: int) -> Rows:
        """Which row each id has at first."""
        n_rows, settings = self.n_rows, self.settings
        owners = np.flatnonzero(self.counts) if self.warm_only else np.arange(len(self.counts))
        remap = None
        if settings.placement == "balanced" or settings.budget is not None or len(owners) < len(self.counts):
            given = np.arange(n_rows)
            if settings.placement == "balanced":
                given = balanced_placement(self.counts[owners]).numpy()
            # First owners are spread evenly over the ids: rows keep their order, and users stay near their rank.
            owners = owners[np.arange(n_rows) * len(owners) // n_rows]
            remap = torch.full((len(self.counts),), -1)
            remap[torch.from_numpy(owners)] = torch.from_numpy(given).long()
            remap = narrow(remap, n_rows)
        return Rows(len(self.counts), remap, torch.zeros(dim, device=device()))


def _tables(
    config: TrainConfig, data: Path, contents: Contents, world: int
) -> tuple[list[_Table], dict[str, Features]]:
    """What there is to learn, and the features of users or items that have some."""
    sides = (
        (USERS, config.users, contents.users, 1.0, USER_FEATURES, config.user_features, "users.parquet"),
        (ITEMS, config.items, contents.items, 1.0 + config.n_negatives, ITEM_FEATURES, config.item_features,
         "items.parquet"),
    )  # fmt: skip
    tables, features = [], {}
    for name, settings, counts, pooling, feature_table, feature_settings, file in sides:
        tables.append(_Table(name, settings, counts, pooling, warm_only=feature_settings is not None))
        if feature_settings is not None:
            features[name] = found = Features.of(feature_table, read_table(data / file))
            asked = found.matrix.shape[1] * world / config.batch_size  # each rank asks for each feature once a step
            tables.append(_Table(feature_table, feature_settings, found.counts(counts), asked))
    return tables, features


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

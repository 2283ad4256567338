"""Recipes on sharded tables: decided over all ranks at once, exactly as on one table, and kept to after every step."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from recsparse.distributed.process import total
from recsparse.distributed.rows import Rows, narrow
from recsparse.distributed.select import on_each_rank, over_ranks, select_best
from recsparse.distributed.sharded import Shard, ShardedTables
from recsparse.errors import ConfigError
from recsparse.sparsity import Dynamic, Evidence, Recipe

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class ShardedPruner:
    """Keeps one sharded table to a recipe, as :class:`recsparse.sparsity.Pruner` does on one machine.

    Masks are what :class:`recsparse.sparsity.Recipe` decides on the whole table, ties included. Unless the schedule
    is dynamic, a row of which nothing is left is absent until a restart brings it back: its ids are answered by the
    fallback where they are asked for, and it is not sent.

    A dynamic schedule grows where the loss pulls most. The optimiser steps pruned entries as well, from zero; what it
    wrote there is summed over the steps since the last decision before it is wiped, and is the pull.

    Attributes:
        masks: kept entries of each shard of this rank, (rows, columns).
        dynamic: whether the schedule exchanges entries.
        pulls: that sum for each shard; empty unless ``dynamic``.
        density: what the recipe allows now.
    """

    def __init__(self, tables: ShardedTables, table: str, recipe: Recipe, rows: Rows) -> None:
        self.recipe, self._rows, self._home = recipe, rows, rows.remap
        spec = tables.specs[table]
        self.shape = (spec.rows, spec.dim)
        self.shards: list[Shard] = tables.shards[table]
        self.masks = [torch.ones(shard.weights.shape, dtype=torch.bool) for shard in self.shards]
        self.dynamic = isinstance(recipe.schedule, Dynamic)
        self.pulls = [torch.zeros_like(shard.weights) for shard in self.shards] if self.dynamic else []
        self.density = 1.0
        self._add = on_each_rank if tables.sharding[table] == "data-parallel" else over_ranks
        self._group = r, c = recipe.granularity.group_shape(self.shape)
        for place in tables.places[table]:
            if place.row % r or place.rows % r or place.column % c or place.columns % c:
                raise ConfigError(
                    f"Blocks of {r} x {c} do not tile the shard of {table} from row {place.row} and column "
                    f"{place.column}, {place.rows} x {place.columns}; choose blocks of one row or another sharding."
                )

    def step(self, progress: float, counts: npt.NDArray[np.int64]) -> None:
        """Decide what is kept when ``progress`` of training is done; every rank calls it together.

        Args:
            progress: from 0 to 1.
            counts: interactions of each physical row.
        """
        before, schedule = self.density, self.recipe.schedule
        self.density = schedule.density(progress, target_density(self.recipe))
        if self.density != before:
            self._keep(counts, within=self.density < before)
        elif self.density < 1.0 and (share := schedule.exchange(progress)):
            self._exchange(share, counts)
        else:
            return
        self.enforce()

    def _keep(self, counts: npt.NDArray[np.int64], *, within: bool) -> None:
        scores = [self._scores(shard, counts) for shard in self.shards]
        if within:
            scores = [np.where(self._alive(mask), each, -np.inf) for each, mask in zip(scores, self.masks, strict=True)]
        budget = self.recipe.budget(self.density, self._n_groups)
        if self.recipe.allocation.kind == "global":
            self._set(self._best(scores, budget))
            return
        share = budget // (self.shape[0] // self._group[0])
        ranks = [np.argsort(np.argsort(-each, axis=1, kind="stable"), axis=1) for each in scores]
        kept = [(rank < share) & (each > -np.inf) for rank, each in zip(ranks, scores, strict=True)]
        rest = [np.where(own, -np.inf, each) for own, each in zip(kept, scores, strict=True)]
        more = self._best(rest, budget - self._count(kept))
        self._set([each | other for each, other in zip(kept, more, strict=True)])

    def _exchange(self, share: float, counts: npt.NDArray[np.int64]) -> None:
        alive = [self._alive(mask) for mask in self.masks]
        living = self._count(alive)
        swapped = min(round(share * living), self._n_groups - living)
        scores = [self._scores(shard, counts) for shard in self.shards]
        lowest = self._best([np.where(a, -s, -np.inf) for a, s in zip(alive, scores, strict=True)], swapped)
        pulls = [self.recipe.granularity.reduce(np.square(pull.numpy())).astype(np.float64) for pull in self.pulls]
        grown = self._best([np.where(a, -np.inf, pull) for a, pull in zip(alive, pulls, strict=True)], swapped)
        self._set([(a & ~gone) | come for a, gone, come in zip(alive, lowest, grown, strict=True)])
        for pull in self.pulls:
            pull.zero_()

    def enforce(self) -> None:
        """Apply the masks to all weights and state, and tell every rank which rows are absent."""
        stored = torch.zeros(self.shape[0], dtype=torch.int32)
        for shard, mask in zip(self.shards, self.masks, strict=True):
            shard.weights.mul_(mask)
            alive = mask.any(dim=1)
            if shard.state is not None:
                shard.state.mul_(alive)
            stored[shard.place.row : shard.place.row + shard.place.rows] += alive
        if self._add is over_ranks:
            total(stored)
        if self.dynamic:
            return
        absent = stored == 0
        self._rows.remap = self._home  # a restart brings rows back
        if absent.any():
            remap = torch.arange(self._rows.n_ids) if self._home is None else self._home.long()
            remap[absent[remap]] = -1
            self._rows.remap = narrow(remap, self.shape[0])

    def after_step(self) -> None:
        """Set what the optimiser has just written to pruned entries back to zero."""
        if self.density >= 1.0:
            return
        for number, (shard, mask) in enumerate(zip(self.shards, self.masks, strict=True)):
            copied = shard.place.rank < 0  # and stepped by what all ranks asked for
            rows = torch.arange(shard.place.rows) if copied else torch.unique(shard.touched)
            values, kept = shard.weights[rows], mask[rows]
            if self.pulls:
                self.pulls[number].index_add_(0, rows, values * ~kept)
            shard.weights.index_copy_(0, rows, values * kept)

    @property
    def _n_groups(self) -> int:
        return self.shape[0] // self._group[0] * (self.shape[1] // self._group[1])

    def _scores(self, shard: Shard, counts: npt.NDArray[np.int64]) -> Floats:
        own = counts[shard.place.row : shard.place.row + shard.place.rows].astype(np.float64)
        evidence = Evidence(shard.weights.numpy(), own, _unknown, _unknown)
        return self.recipe.granularity.reduce(self.recipe.criterion.scores(evidence)).astype(np.float64)

    def _alive(self, mask: torch.Tensor) -> Bools:
        return self.recipe.granularity.reduce(mask.numpy().astype(np.float64)) > 0

    def _count(self, kept: Iterable[Bools]) -> int:
        return int(self._add(np.array([sum(int(each.sum()) for each in kept)], dtype=np.int64))[0])

    def _best(self, scores: list[Floats], budget: int) -> list[Bools]:
        """The best groups over all ranks, ties to the lower place in the table."""
        places = [self._places(shard, score.shape) for shard, score in zip(self.shards, scores, strict=True)]
        flat = np.concatenate([np.zeros(0), *(score.ravel() for score in scores)])
        at = np.concatenate([np.zeros(0, np.int64), *(place.ravel() for place in places)])
        chosen = select_best(flat, at, budget, self._add)
        starts = np.cumsum([0, *(score.size for score in scores)])
        return [
            chosen[start : start + score.size].reshape(score.shape)
            for start, score in zip(starts, scores, strict=False)
        ]

    def _places(self, shard: Shard, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        row, column = shard.place.row // self._group[0], shard.place.column // self._group[1]
        columns = self.shape[1] // self._group[1]
        return (row + np.arange(shape[0]))[:, None] * columns + column + np.arange(shape[1])

    def _set(self, kept: list[Bools]) -> None:
        for number, shard in enumerate(self.shards):
            entries = self.recipe.granularity.expand(kept[number], (shard.place.rows, shard.place.columns))
            self.masks[number] = torch.from_numpy(np.ascontiguousarray(entries))


def target_density(recipe: Recipe) -> float:
    """The density to end at."""
    if recipe.density is None:
        raise ConfigError("A sharded table is pruned to a density; give the recipe density instead of bytes.")
    return recipe.density


def _unknown() -> npt.NDArray[np.float32]:
    raise ConfigError("A sharded table has no gradients of all its entries; use criterion magnitude or frequency.")

"""Recipes on sharded tables: decided over all ranks at once, exactly as on one table, and kept to after every step."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from recsparse.distributed.process import total
from recsparse.distributed.rows import Rows, narrow, shares
from recsparse.distributed.select import on_each_rank, over_ranks, select_best
from recsparse.distributed.sharded import Shard, ShardedTables
from recsparse.errors import BudgetError, ConfigError
from recsparse.sparsity import Dynamic, Evidence, Magnitude, Recipe
from recsparse.sparsity.criterion import Criterion
from recsparse.sparsity.recipe import GONE, STAYS
from recsparse.tables import Mask, choose_layout

ALIVE = 1e-30
"""Written where a kept entry is zero, so that whoever looks a row up can tell what of it is pruned."""

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class ShardedPruner:
    """Keeps one sharded table to a recipe, as :class:`recsparse.sparsity.Pruner` does on one machine.

    Masks are what :class:`recsparse.sparsity.Recipe` decides on the whole table, ties included. Unless the schedule
    is dynamic, a row of which nothing is left is absent until a restart brings it back: its ids are answered by the
    fallback where they are asked for, and it is not sent.

    A dynamic schedule and criteria that need gradients go by where the loss pulls: what the optimiser has added to an
    entry over the steps since the last decision. For SGD that is the sum of their gradients times the learning rate;
    Adagrad divides each by the root of the row's sum. Pruned entries are stepped as well, from zero, and then
    wiped. A dynamic table starts on the largest of its random values, whatever the criterion, as RigL starts on a
    random support (Evci et al. 2020).

    A budget in bytes is what all ranks' files of the packed table take together. A rank sizes the rows that it will
    pack, so the number of entries depends a little on the number of ranks: each file has paddings and counters.

    Attributes:
        masks: kept entries of each shard of this rank, (rows, columns).
        dynamic: whether the schedule exchanges entries.
        pulled: whether it goes by where the loss pulls.
        pulls: that sum for each shard; empty unless ``pulled``.
        density: what the recipe allows now.
    """

    def __init__(self, tables: ShardedTables, table: str, recipe: Recipe, rows: Rows, value_type: str = "fp32") -> None:
        self.recipe, self._rows, self._home = recipe, rows, rows.remap
        spec = tables.specs[table]
        self.shape = (spec.rows, spec.dim)
        self.shards: list[Shard] = tables.shards[table]
        self.masks = [torch.ones(shard.weights.shape, dtype=torch.bool) for shard in self.shards]
        self.dynamic = isinstance(recipe.schedule, Dynamic)
        self._criterion: Criterion = recipe.criterion
        self._by_gradient = recipe.criterion.kind in ("gradient", "saliency")
        self.pulled = self.dynamic or self._by_gradient
        self.pulls = [torch.zeros_like(shard.weights) for shard in self.shards] if self.pulled else []
        self._rows_stepped: list[torch.Tensor] = []
        self._before: list[torch.Tensor] = []
        self.density = 1.0
        self._add = on_each_rank if tables.sharding[table] == "data-parallel" else over_ranks
        self._world, self._value_type = tables.world, value_type
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
        if schedule.density(progress, 0.0) >= 1.0 and before >= 1.0:
            return  # dense whatever the target, which can be costly to know
        # Before the first step nothing has pulled yet: the initial values, which are random, decide.
        self._criterion = Magnitude() if self._by_gradient and progress == 0.0 else self.recipe.criterion
        target = self._target(counts)
        self.density = schedule.density(progress, target)
        if self.density != before:
            self._keep(counts, within=self.density < before, last=self.density <= target)
        elif self.density < 1.0 and (share := schedule.exchange(progress)):
            self._exchange(share, counts)
        else:
            return
        for pull in self.pulls:
            pull.zero_()
        self.enforce()

    def _target(self, counts: npt.NDArray[np.int64]) -> float:
        """The density to end at; for a budget in bytes, what that buys now."""
        if self.recipe.density is not None:
            return self.recipe.density
        return self._affordable(self._scores(counts)) / self._n_groups

    def _affordable(self, scores: list[Floats]) -> int:
        """How many groups the budget in bytes buys, by bisection."""
        shape = self.shape[0] // self._group[0], self.shape[1] // self._group[1]
        bought = self.recipe.most(lambda groups: self._fits(self._choose(scores, groups)), shape)
        if bought == 0:
            raise BudgetError(
                f"A budget of {self.recipe.bytes:,} bytes is too small for this table on {self._world} ranks: it takes "
                f"{self._size(self._choose(scores, 1)):,} bytes with one {self.recipe.granularity.kind}."
            )
        return bought

    def _fits(self, kept: list[Bools]) -> bool:
        return self._size(kept) <= (self.recipe.bytes or 0)

    def _size(self, kept: list[Bools]) -> int:
        """Bytes of all ranks' files."""
        parts = [np.zeros((0, self.shape[1]), dtype=np.bool_)]
        parts += [self._entries(each, shard) for each, shard in zip(kept, self.shards, strict=True)]
        mask = np.concatenate(parts)
        if self._world > 1 and self._add is on_each_rank:
            starts, rank = shares(self.shape[0], self._world), dist.get_rank()
            mask = mask[starts[rank] : starts[rank + 1]]
        size = np.array([choose_layout(Mask.from_dense(mask), value_type=self._value_type).nbytes], dtype=np.int64)
        return int((over_ranks(size) if self._world > 1 else size)[0])

    def _keep(self, counts: npt.NDArray[np.int64], *, within: bool, last: bool) -> None:
        """Choose; at the ``last`` density what is left must be affordable, also where the best of all had to live."""
        scores = self._scores(counts)
        if within:
            scores = [np.where(self._alive(mask), each, -np.inf) for each, mask in zip(scores, self.masks, strict=True)]
        kept = self._choose(scores, self.recipe.budget(self.density, self._n_groups))
        if last and self.recipe.bytes is not None and not self._fits(kept):
            kept = self._choose(scores, self._affordable(scores))
        self._set(kept)

    def _choose(self, scores: list[Floats], budget: int) -> list[Bools]:
        if self.recipe.allocation.kind == "global":
            return self._best(scores, budget)
        share = budget // (self.shape[0] // self._group[0])
        ranks = [np.argsort(np.argsort(-each, axis=1, kind="stable"), axis=1) for each in scores]
        kept = [(rank < share) & (each > -np.inf) for rank, each in zip(ranks, scores, strict=True)]
        rest = [np.where(own, -np.inf, each) for own, each in zip(kept, scores, strict=True)]
        more = self._best(rest, budget - self._count(kept))
        return [each | other for each, other in zip(kept, more, strict=True)]

    def _exchange(self, share: float, counts: npt.NDArray[np.int64]) -> None:
        alive = [self._alive(mask) for mask in self.masks]
        living = self._count(alive)
        swapped = min(round(share * living), self._n_groups - living)
        scores = self._scores(counts)
        pulls = [self.recipe.granularity.reduce(np.square(pull.numpy())).astype(np.float64) for pull in self.pulls]
        if self.recipe.allocation.kind == "global":
            lowest = self._best([np.where(a, -s, -np.inf) for a, s in zip(alive, scores, strict=True)], swapped)
            grown = self._best([np.where(a, -np.inf, pull) for a, pull in zip(alive, pulls, strict=True)], swapped)
            self._set([(a & ~gone) | come for a, gone, come in zip(alive, lowest, grown, strict=True)])
            return
        within = [np.where(a, s, -np.inf) for a, s in zip(alive, scores, strict=True)]
        stays = self._choose(within, living - swapped)
        wanted = [np.where(a, GONE, pull) for a, pull in zip(alive, pulls, strict=True)]
        self._set(self._choose([np.where(s, STAYS, w) for s, w in zip(stays, wanted, strict=True)], living))

    def enforce(self) -> None:
        """Apply the masks to all weights and state, and tell every rank which rows are absent."""
        stored = torch.zeros(self.shape[0], dtype=torch.int32)
        for shard, mask in zip(self.shards, self.masks, strict=True):
            shard.weights.mul_(mask)
            if self.confines:
                shard.weights[mask & (shard.weights == 0)] = ALIVE
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

    def before_step(self) -> None:
        """Note where the rows are that have been looked up, before the optimiser steps them."""
        if self.density < 1.0 or self.pulled:
            self._rows_stepped = [_stepped(shard) for shard in self.shards]
        if self.pulled:
            stepped = zip(self.shards, self._rows_stepped, strict=True)
            self._before = [shard.weights[rows] for shard, rows in stepped]

    def after_step(self) -> None:
        """Set what the optimiser has just written to pruned entries back to zero."""
        if self.density >= 1.0 and not self.pulled:
            return
        for number, (shard, mask) in enumerate(zip(self.shards, self.masks, strict=True)):
            rows = self._rows_stepped[number]
            values = shard.weights[rows]
            if self.pulled:
                self.pulls[number].index_add_(0, rows, values - self._before[number])
            if self.density < 1.0:
                shard.weights.index_copy_(0, rows, values * mask[rows])

    @property
    def confines(self) -> bool:
        """Whether pruned entries need no gradient now."""
        return self.density < 1.0 and not self.pulled

    @property
    def _n_groups(self) -> int:
        return self.shape[0] // self._group[0] * (self.shape[1] // self._group[1])

    def _scores(self, counts: npt.NDArray[np.int64]) -> list[Floats]:
        scores = []
        for number, shard in enumerate(self.shards):
            own = counts[shard.place.row : shard.place.row + shard.place.rows].astype(np.float64)
            pull = self.pulls[number].numpy if self.pulled else _unknown
            evidence = Evidence(shard.weights.numpy(), own, pull, _unknown)
            scores.append(self.recipe.granularity.reduce(self._criterion.scores(evidence)).astype(np.float64))
        return scores

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
            self.masks[number] = torch.from_numpy(np.ascontiguousarray(self._entries(kept[number], shard)))

    def _entries(self, kept: Bools, shard: Shard) -> Bools:
        return self.recipe.granularity.expand(kept, (shard.place.rows, shard.place.columns))


def _stepped(shard: Shard) -> torch.Tensor:
    """The rows that the optimiser steps; of a copy, what any rank asked for."""
    return torch.arange(shard.place.rows) if shard.place.rank < 0 else torch.unique(shard.touched)


def _unknown() -> npt.NDArray[np.float32]:
    raise ConfigError("SGD has no least-squares curvature; use another criterion than loss-increase.")

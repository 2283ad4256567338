"""A recipe: how a table becomes sparse."""

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt, model_validator

from recsparse.errors import BudgetError, ConfigError
from recsparse.sparsity.allocation import Allocation, Global, Kept, Uniform
from recsparse.sparsity.criterion import Array, Criterion, Evidence, Knowledge, Magnitude
from recsparse.sparsity.granularity import Element, Granularity
from recsparse.sparsity.piece import Piece
from recsparse.sparsity.schedule import Gradual, Schedule, Tickets
from recsparse.tables.mask import Mask
from recsparse.validation import validate

STAYS, GONE = 1e300, -1.0
"""What stands among squared gradients for a group that stays, and for one that has just been dropped."""


class Recipe(Piece):
    """Granularity x criterion x schedule x allocation x budget.

    Attributes:
        density: the share of entries kept when training ends, in (0, 1]; or instead
        bytes: the most the packed table may take, values, indices, remap and scales included.
        granularity: what is kept or dropped together.
        criterion: what ranks the groups.
        schedule: the density at each moment of training.
        allocation: where the budget goes.

    Example:
        >>> recipe = Recipe(density=0.25, granularity="element", schedule="oneshot")
        >>> recipe.granularity.kind, recipe.criterion.kind
        ('element', 'magnitude')
    """

    density: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    bytes: PositiveInt | None = None
    granularity: Granularity = Element()
    criterion: Criterion = Magnitude()
    schedule: Schedule = Gradual()
    allocation: Allocation = Global()

    @classmethod
    def parse(cls, recipe: Self | dict[str, Any]) -> Self:
        """Take a recipe, or the plain data of one.

        Raises:
            ConfigError: a key is unknown or a value impossible; the message names it.
        """
        return recipe if isinstance(recipe, cls) else validate(cls, recipe, "recipe")

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.density is None) == (self.bytes is None):
            raise ValueError("a recipe needs a budget: either density or bytes")
        if self.schedule.shrinks() and not isinstance(self.criterion, Magnitude):
            raise ValueError(f"a soft threshold goes by magnitude, not by {self.criterion.kind}")
        return self

    def check(self, shape: tuple[int, int], epochs: int) -> None:
        """Refuse a training that could not do what the recipe says, before it begins.

        Args:
            shape: (R, D) of the table.
            epochs: to train.

        Raises:
            ConfigError: groups do not tile the table, or tickets would leave no epoch after the last rewinding.
        """
        self.granularity.tiling(shape)
        if isinstance(self.schedule, Tickets) and epochs <= self.schedule.rounds:
            raise ConfigError(
                f"Tickets of {self.schedule.rounds} rounds in {epochs} epochs would end on values that are rewound and "
                f"not trained again; take at least {self.schedule.rounds + 1} epochs, or fewer rounds."
            )

    def keep(self, evidence: Knowledge, density: float, within: Mask | None = None) -> Mask:
        """Choose the entries to keep, a mask of (R, D) with ``round(density * groups)`` groups, at least one.

        Under any allocation but global the scores of all groups are looked at together.

        Args:
            evidence: the table and what is known about it.
            density: share of the table's groups to keep.
            within: only groups of this mask may be kept (a pruned group does not come back).
        """
        groups = self._n_groups(evidence)
        if not isinstance(self.allocation, Global):
            return self._best(evidence, self._weighed(evidence, within), self.budget(density, groups))

        def score(part: Evidence, first: int) -> Array:
            return self._scores(part, first, within)

        places = evidence.best(score, self.budget(density, groups), groups)
        return Mask.from_places(places, evidence.shape, self.granularity.group_shape(evidence.shape))

    def exchange(self, evidence: Knowledge, share: float, kept: Mask) -> Mask:
        """Drop the lowest ``share`` of the kept groups and grow as many where the gradient is largest.

        The allocation says which are the lowest and the largest, so that its budget stays where it is. What was dropped
        comes back at once only where its part of the table has nothing else; as many groups are kept as before.
        """
        groups = self._n_groups(evidence)
        alive = int(kept.row_counts[:: kept.block[0]].sum()) // kept.block[1]
        swapped = min(round(share * alive), groups - alive)
        if not isinstance(self.allocation, Global):
            return self._exchanged(evidence, alive - swapped, kept)

        def weakest(part: Evidence, first: int) -> Array:
            scores = self._scores(part, first, kept)
            return np.where(np.isfinite(scores), -scores, -np.inf)

        def pulled(part: Evidence, first: int) -> Array:
            pull = self._pulls(part)
            pull[self._tiles(kept, first, len(pull))] = -np.inf
            return pull

        dropped = evidence.best(weakest, swapped, groups)
        return kept.flipped(dropped).flipped(evidence.best(pulled, swapped, groups))

    def _exchanged(self, evidence: Knowledge, staying: int, kept: Mask) -> Mask:
        """:meth:`exchange` until ``staying`` of the kept groups are left, all groups looked at together."""
        whole, shape = evidence.whole(), self.granularity.group_shape(evidence.shape)
        counts = self._group_counts(evidence)
        before = self._tiles(kept, 0, len(counts))
        stays = self.allocation.keep(self._weighed(whole, kept), staying, counts)
        wanted = self._pulls(whole).astype(np.float64)
        wanted[before], wanted[stays] = GONE, STAYS
        return Mask.from_tiles(self.allocation.renew(wanted, before, counts), evidence.shape, shape)

    def shrink(self, evidence: Evidence, kept: Mask) -> Array:
        """Pull what is kept towards zero by the largest magnitude that was not: ``v max(0, 1 - t / ||group||)``.

        The threshold t is that of a group's part of the allocation.
        """
        norms = np.sqrt(self.granularity.reduce(np.square(evidence.values)))
        tiles = self._tiles(kept, 0, len(norms))
        parts = self.allocation.parts(tiles, self._group_counts(evidence))
        thresholds = np.zeros(parts.max() + 1, dtype=norms.dtype)
        np.maximum.at(thresholds, parts, np.where(tiles, 0, norms).max(axis=1))
        factor = np.maximum(0.0, 1.0 - thresholds[parts][:, None] / np.maximum(norms, 1e-30))
        r, c = self.granularity.group_shape(evidence.shape)
        spread = np.repeat(np.repeat(factor, r, axis=0), c, axis=1)
        shrunk: Array = np.where(kept.to_dense(), evidence.values * spread, 0).astype(evidence.values.dtype)
        return shrunk

    @staticmethod
    def budget(density: float, groups: int) -> int:
        """How many of so many groups a density keeps."""
        return max(1, round(density * groups))

    def affordable(self, evidence: Knowledge, size_of: Callable[[Mask], int], within: Mask | None = None) -> float:
        """The largest density whose packed table takes at most ``bytes``; see :meth:`most`.

        Args:
            evidence: the table and what is known about it.
            size_of: bytes of the packed table for a mask.
            within: as in :meth:`keep`.

        Raises:
            BudgetError: even one group takes more.
        """
        if self.bytes is None:
            raise ConfigError("The recipe's budget is a density, not bytes.")
        scores, budget = self._weighed(evidence, within), self.bytes
        groups = scores.size
        bought = self.most(lambda n: size_of(self._best(evidence, scores, n)) <= budget, scores.shape)
        if bought == 0:
            least, most = (size_of(self._best(evidence, scores, n)) for n in (1, groups))
            raise BudgetError(
                f"A budget of {self.bytes:,} bytes is too small for this table: it takes {least:,} bytes with one "
                f"{self.granularity.kind} and {most:,} with all."
            )
        return bought / groups

    def most(self, fits: Callable[[int], bool], shape: tuple[int, ...]) -> int:
        """The most groups that fit a budget, 0 if none do, by bisection.

        Tables grow with the groups in them, but that rows of equally many need no counts: under a uniform allocation a
        row more for all may fit where a few more do not. In small tables other allocations can fall by a few bytes too;
        a few groups more than these might then fit.

        Args:
            fits: whether so many groups do.
            shape: rows and columns of groups in the table.
        """
        groups, step = math.prod(shape), shape[0] if isinstance(self.allocation, Uniform) else 1
        whole = step * bisect_left(range(step, groups + 1, step), True, key=lambda n: not fits(n))
        between = range(whole + 1, min(whole + step, groups + 1))
        return whole + bisect_left(between, True, key=lambda n: not fits(n))

    def _scores(self, evidence: Evidence, first: int, within: Mask | None) -> Array:
        """The groups' scores in a part of the table that begins with row ``first``."""
        scores: Array = self.granularity.reduce(self.criterion.scores(evidence))
        if within is not None:
            scores[~self._tiles(within, first, len(scores))] = -np.inf
        return scores

    def _pulls(self, evidence: Evidence) -> Array:
        """The groups' squared gradients."""
        pulls: Array = self.granularity.reduce(np.square(evidence.gradients()))
        return pulls

    def _weighed(self, evidence: Knowledge, within: Mask | None) -> Array:
        """The whole table's scores as the allocation goes by them."""
        whole = evidence.whole()
        r, c = self.granularity.group_shape(whole.shape)

        def loss(rows: npt.NDArray[np.int64], kept: Kept) -> float:
            spread = np.repeat(np.repeat(kept, r, axis=0), c, axis=1)
            return whole.loss((rows[:, None] * r + np.arange(r)).ravel(), spread)

        return self.allocation.weigh(self._scores(whole, 0, within), self._group_counts(whole), loss)

    def _best(self, evidence: Knowledge, scores: Array, groups: int) -> Mask:
        kept = self.allocation.keep(scores, groups, self._group_counts(evidence))
        return Mask.from_tiles(kept, evidence.shape, self.granularity.group_shape(evidence.shape))

    @staticmethod
    def _tiles(mask: Mask, first: int, n: int) -> Kept:
        """``n`` rows of the mask's groups, from the table's row ``first``."""
        start = first // mask.block[0]
        return mask.tiles(start, start + n)

    def _n_groups(self, evidence: Knowledge) -> int:
        (rows, dim), (r, c) = evidence.shape, self.granularity.group_shape(evidence.shape)
        return rows // r * (dim // c)

    def _group_counts(self, evidence: Knowledge) -> Array:
        rows = self.granularity.group_shape(evidence.shape)[0]
        counts: Array = np.asarray(evidence.counts, dtype=np.float64).reshape(-1, rows).sum(axis=1)
        return counts

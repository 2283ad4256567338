"""A recipe: how a table becomes sparse."""

from bisect import bisect_left
from collections.abc import Callable
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveInt, model_validator

from recsparse.errors import BudgetError, ConfigError
from recsparse.sparsity.allocation import Allocation, Global, Kept, Sensitivity, best
from recsparse.sparsity.criterion import Array, Criterion, Evidence, Magnitude
from recsparse.sparsity.granularity import Element, Granularity
from recsparse.sparsity.piece import Piece
from recsparse.sparsity.schedule import Gradual, Schedule
from recsparse.validation import validate


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
        if self.schedule.shrinks() and isinstance(self.allocation, Sensitivity):
            raise ValueError("a soft threshold is one for the whole table; allocation sensitivity has one a part of it")
        return self

    def keep(self, evidence: Evidence, density: float, within: Kept | None = None) -> Kept:
        """Choose the entries to keep, a mask (R, D) with ``round(density * groups)`` groups, at least one.

        Args:
            evidence: the table and what is known about it.
            density: share of the table's groups to keep.
            within: only groups of this mask may be kept (a pruned group does not come back).
        """
        scores = self._scores(evidence, within)
        return self._best(evidence, scores, self.budget(density, scores.size))

    def exchange(self, evidence: Evidence, share: float, kept: Kept) -> Kept:
        """Drop the lowest ``share`` of the kept groups and grow as many where the gradient is largest.

        What was dropped does not come back at once; as many groups are kept as before.
        """
        shape = _shape(evidence)
        scores = self._scores(evidence, kept)
        alive = np.isfinite(scores)
        swapped = min(round(share * int(alive.sum())), int((~alive).sum()))
        dropped = best(np.where(alive, -scores, -np.inf).ravel(), swapped)
        pull = np.where(alive, -np.inf, self.granularity.reduce(np.square(evidence.gradients())))
        grown = best(pull.ravel(), swapped)
        alive.ravel()[dropped] = False
        alive.ravel()[grown] = True
        return self.granularity.expand(alive, shape)

    def shrink(self, evidence: Evidence, kept: Kept) -> Array:
        """Pull what is kept towards zero by the largest magnitude that was not: ``v max(0, 1 - t / ||group||)``."""
        norms = np.sqrt(self.granularity.reduce(np.square(evidence.values)))
        gone = ~(self.granularity.reduce(kept.astype(np.float64)) > 0)
        threshold = norms[gone].max(initial=0.0)
        factor = np.maximum(0.0, 1.0 - threshold / np.maximum(norms, 1e-30))
        r, c = self.granularity.group_shape(_shape(evidence))
        spread = np.repeat(np.repeat(factor, r, axis=0), c, axis=1)
        shrunk: Array = np.where(kept, evidence.values * spread, 0).astype(evidence.values.dtype)
        return shrunk

    @staticmethod
    def budget(density: float, groups: int) -> int:
        """How many of so many groups a density keeps."""
        return max(1, round(density * groups))

    def affordable(self, evidence: Evidence, size_of: Callable[[Kept], int], within: Kept | None = None) -> float:
        """The largest density whose packed table takes at most ``bytes``.

        Args:
            evidence: the table and what is known about it.
            size_of: bytes of the packed table for a mask.
            within: as in :meth:`keep`.

        Raises:
            BudgetError: even one group takes more.
        """
        if self.bytes is None:
            raise ConfigError("The recipe's budget is a density, not bytes.")
        scores, budget = self._scores(evidence, within), self.bytes
        groups = scores.size
        bought = bisect_left(
            range(1, groups + 1), True, key=lambda n: size_of(self._best(evidence, scores, n)) > budget
        )
        if bought == 0:
            least, most = (size_of(self._best(evidence, scores, n)) for n in (1, groups))
            raise BudgetError(
                f"A budget of {self.bytes:,} bytes is too small for this table: it takes {least:,} bytes with one "
                f"{self.granularity.kind} and {most:,} with all."
            )
        return bought / groups

    def _scores(self, evidence: Evidence, within: Kept | None) -> Array:
        scores: Array = self.granularity.reduce(self.criterion.scores(evidence))
        if within is not None:
            scores[self.granularity.reduce(within.astype(np.float64)) == 0] = -np.inf
        r, c = self.granularity.group_shape(_shape(evidence))

        def loss(rows: npt.NDArray[np.int64], kept: Kept) -> float:
            spread = np.repeat(np.repeat(kept, r, axis=0), c, axis=1)
            return evidence.loss((rows[:, None] * r + np.arange(r)).ravel(), spread)

        return self.allocation.weigh(scores, self._group_counts(evidence), loss)

    def _best(self, evidence: Evidence, scores: Array, groups: int) -> Kept:
        kept = self.allocation.keep(scores, groups, self._group_counts(evidence))
        return self.granularity.expand(kept, _shape(evidence))

    def _group_counts(self, evidence: Evidence) -> Array:
        rows = self.granularity.group_shape(_shape(evidence))[0]
        counts: Array = np.asarray(evidence.counts, dtype=np.float64).reshape(-1, rows).sum(axis=1)
        return counts


def _shape(evidence: Evidence) -> tuple[int, int]:
    rows, dim = evidence.values.shape
    return int(rows), int(dim)

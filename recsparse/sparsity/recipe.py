"""A recipe: how a table becomes sparse."""

from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field

from recsparse.sparsity.allocation import Allocation, Global, Kept
from recsparse.sparsity.criterion import Criterion, Evidence, Magnitude
from recsparse.sparsity.granularity import Element, Granularity
from recsparse.sparsity.piece import Piece
from recsparse.sparsity.schedule import Gradual, Schedule
from recsparse.validation import validate


class Recipe(Piece):
    """Granularity x criterion x schedule x allocation x budget.

    Attributes:
        density: the share of entries kept when training ends, in (0, 1].
        granularity: what is kept or dropped together.
        criterion: what ranks the groups.
        schedule: the density at each moment of training.
        allocation: where the budget goes.

    Example:
        >>> recipe = Recipe(density=0.25, granularity="element", schedule="oneshot")
        >>> recipe.schedule.density(1.0, recipe.density)
        0.25
    """

    density: Annotated[float, Field(gt=0.0, le=1.0)]
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

    def density_at(self, progress: float) -> float:
        """The share of entries allowed when ``progress`` (0 to 1) of training is done."""
        return self.schedule.density(progress, self.density)

    def keep(self, evidence: Evidence, density: float, within: Kept | None = None) -> Kept:
        """Choose the entries to keep, a mask (R, D) with ``round(density * groups)`` groups, at least one.

        Args:
            evidence: the table and what is known about it.
            density: share of the table's groups to keep.
            within: only groups of this mask may be kept (a pruned group does not come back).
        """
        shape = (int(evidence.values.shape[0]), int(evidence.values.shape[1]))
        scores = self.granularity.reduce(self.criterion.scores(evidence))
        budget = max(1, round(density * scores.size))
        if within is not None:
            alive = self.granularity.reduce(within.astype(np.float64)) > 0
            scores = np.where(alive, scores, -np.inf)
            budget = min(budget, int(alive.sum()))
        return self.granularity.expand(self.allocation.keep(scores, budget), shape)

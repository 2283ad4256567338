"""A recipe at work: the mask of one table while it trains."""

from collections.abc import Callable
from typing import Any

from recsparse.errors import ConfigError
from recsparse.sparsity.allocation import Kept
from recsparse.sparsity.criterion import Array, Evidence
from recsparse.sparsity.granularity import Row
from recsparse.sparsity.recipe import Recipe
from recsparse.sparsity.schedule import Tickets


class Pruner:
    """Carries a recipe's mask through training. A model calls :meth:`step` after each epoch and applies what it says.

    Attributes:
        recipe: what to do.
        kept: the mask (R, D); None while the table is dense.
        fixed: whether the values that the last step gave are meant as they are (shrunk, or rewound) and not only as
            what is left of the table.

    Example:
        >>> import numpy as np
        >>> pruner = Pruner(Recipe(density=0.5, schedule="oneshot"))
        >>> values = np.array([[3.0, 1.0], [2.0, 0.5]])
        >>> evidence = Evidence(values, np.ones(2), lambda: values, lambda: values)
        >>> pruner.step(evidence, 1.0)
        array([[3., 0.],
               [2., 0.]])
    """

    def __init__(self, recipe: Recipe, size_of: Callable[[Kept], int] | None = None) -> None:
        self.recipe = recipe
        self.kept: Kept | None = None
        self.fixed = False
        self._size_of = size_of
        self._shrinking = False
        self._previous = 0.0
        self._density = 1.0
        self._early: Array | None = None

    @property
    def support(self) -> Kept | None:
        """The entries that training is confined to; None while all are alive."""
        return None if self._shrinking else self.kept

    def step(self, evidence: Evidence, progress: float) -> Array | None:
        """Decide what is kept when ``progress`` (0 to 1) of training is done.

        Returns:
            The table's values from now on, zero where nothing is kept; None where nothing changes.
        """
        recipe, previous = self.recipe, self._previous
        schedule = recipe.schedule
        self._previous = progress
        if isinstance(schedule, Tickets) and schedule.remembers(progress, previous):
            self._early = evidence.values.copy()
        target = self._target(evidence)
        density = schedule.density(progress, target)
        before, self._density = self._density, density
        self.fixed, self._shrinking = False, schedule.shrinks() and density != before
        if density >= 1.0:
            self.kept = None
            return None
        if self.kept is None or density > before or self._shrinking:
            self.kept = recipe.keep(evidence, density)
        elif density < before:
            self.kept = recipe.keep(evidence, density, self.kept)
        elif share := schedule.exchange(progress):
            self.kept = recipe.exchange(evidence, share, self.kept)
        else:
            return None
        if density <= target:
            self.kept = self._afforded(evidence, self.kept)
        if self._shrinking:
            self.fixed = True
            return recipe.shrink(evidence, self.kept)
        if self._early is not None and schedule.rewinds(progress, previous):
            self.fixed = True
            return self._early * self.kept
        return evidence.values * self.kept

    def begins(self, progress: float) -> bool:
        """Whether the next :meth:`step` is the first to take entries, and columns may still be changed for others.

        They may not where whole rows go, which gains nothing, or where values go back to what they were.
        """
        some_go = self.kept is None and self.recipe.schedule.density(progress, 0.0) < 1.0
        return (
            some_go and not isinstance(self.recipe.granularity, Row) and not isinstance(self.recipe.schedule, Tickets)
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What :meth:`restore` needs to go on from here: arrays by names of their own, and plain values."""
        arrays: dict[str, Any] = {"pruner.kept": self.kept, "pruner.early": self._early}
        return {name: array for name, array in arrays.items() if array is not None}, {
            "fixed": self.fixed, "shrinking": self._shrinking, "previous": self._previous, "density": self._density
        }  # fmt: skip

    def restore(self, arrays: dict[str, Any], values: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave, whatever other arrays stand beside it."""
        self.kept, self._early = arrays.get("pruner.kept"), arrays.get("pruner.early")
        self.fixed, self._shrinking = values["fixed"], values["shrinking"]
        self._previous, self._density = values["previous"], values["density"]

    def _target(self, evidence: Evidence) -> float:
        """The density to end at; for a budget in bytes, what that buys now."""
        if self.recipe.density is not None:
            return self.recipe.density
        if self._size_of is None:
            raise ConfigError("This model cannot tell what its table takes; give the recipe a density, not bytes.")
        return self.recipe.affordable(evidence, self._size_of)

    def _afforded(self, evidence: Evidence, kept: Kept) -> Kept:
        """``kept`` without its least groups, where an exchange, or a choice among the living, takes more bytes."""
        recipe = self.recipe
        if recipe.bytes is None or self._size_of is None or self._size_of(kept) <= recipe.bytes:
            return kept
        return recipe.keep(evidence, recipe.affordable(evidence, self._size_of, kept), kept)

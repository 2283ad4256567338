"""A recipe at work: the mask of one table while it trains."""

from collections.abc import Callable
from typing import Any

from recsparse.errors import ConfigError
from recsparse.sparsity.criterion import Array, Knowledge
from recsparse.sparsity.granularity import Row
from recsparse.sparsity.recipe import Recipe
from recsparse.sparsity.schedule import Tickets
from recsparse.tables.bits import frozen
from recsparse.tables.mask import Mask


class Pruner:
    """Carries a recipe's mask through training. A model calls :meth:`step` after each epoch and applies what it says.

    Attributes:
        recipe: what to do.
        kept: the mask of (R, D), a tile a group; None while the table is dense.
        values: (R, D), what the last step made of the table where it shrank or rewound it; None where what is left of
            the table stays as it is.

    Example:
        >>> import numpy as np
        >>> from recsparse.sparsity import Evidence
        >>> pruner = Pruner(Recipe(density=0.5, schedule="oneshot"))
        >>> values = np.array([[3.0, 1.0], [2.0, 0.5]])
        >>> evidence = Evidence(values, np.ones(2), lambda: values, lambda: values)
        >>> pruner.step(evidence, 1.0), pruner.kept.to_dense().tolist()
        (True, [[True, False], [True, False]])
    """

    def __init__(self, recipe: Recipe, size_of: Callable[[Mask], int] | None = None) -> None:
        self.recipe = recipe
        self.kept: Mask | None = None
        self.values: Array | None = None
        self._size_of = size_of
        self._shrinking = False
        self._previous = 0.0
        self._density = 1.0
        self._early: Array | None = None

    @property
    def support(self) -> Mask | None:
        """The entries that training is confined to; None while all are alive."""
        return None if self._shrinking else self.kept

    def step(self, evidence: Knowledge, progress: float) -> bool:
        """Decide what is kept when ``progress`` (0 to 1) of training is done; give whether anything was decided."""
        recipe, previous = self.recipe, self._previous
        schedule = recipe.schedule
        self._previous = progress
        if isinstance(schedule, Tickets) and schedule.remembers(progress, previous):
            self._early = evidence.whole().values.copy()
        target = self._target(evidence)
        density = schedule.density(progress, target)
        before, self._density = self._density, density
        self.values, self._shrinking = None, schedule.shrinks() and density != before
        if density >= 1.0:
            self.kept = None
            return False
        if self.kept is None or density > before or self._shrinking:
            self.kept = recipe.keep(evidence, density)
        elif density < before:
            self.kept = recipe.keep(evidence, density, self.kept)
        elif share := schedule.exchange(progress):
            self.kept = recipe.exchange(evidence, share, self.kept)
        else:
            return False
        if density <= target:
            self.kept = self._afforded(evidence, self.kept)
        if self._shrinking:
            self.values = recipe.shrink(evidence.whole(), self.kept)
        elif self._early is not None and schedule.rewinds(progress, previous):
            self.values = self._early * self.kept.to_dense()
        return True

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
        arrays: dict[str, Any] = {} if self._early is None else {"pruner.early": self._early}
        told: dict[str, Any] = {"shrinking": self._shrinking, "previous": self._previous, "density": self._density}
        if self.kept is not None:
            arrays["pruner.kept"] = self.kept.bits
            told |= {"shape": self.kept.shape, "block": self.kept.block}
        return arrays, told

    def restore(self, arrays: dict[str, Any], values: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave, whatever other arrays stand beside it."""
        self._early, self._shrinking = arrays.get("pruner.early"), values["shrinking"]
        self._previous, self._density = values["previous"], values["density"]
        if "shape" in values:
            self.kept = Mask(tuple(values["shape"]), tuple(values["block"]), frozen(arrays["pruner.kept"]))

    def _target(self, evidence: Knowledge) -> float:
        """The density to end at; for a budget in bytes, what that buys now."""
        if self.recipe.density is not None:
            return self.recipe.density
        if self._size_of is None:
            raise ConfigError("This model cannot tell what its table takes; give the recipe a density, not bytes.")
        return self.recipe.affordable(evidence, self._size_of)

    def _afforded(self, evidence: Knowledge, kept: Mask) -> Mask:
        """``kept`` without its least groups, where an exchange, or a choice among the living, takes more bytes."""
        recipe = self.recipe
        if recipe.bytes is None or self._size_of is None or self._size_of(kept) <= recipe.bytes:
            return kept
        return recipe.keep(evidence, recipe.affordable(evidence, self._size_of, kept), kept)

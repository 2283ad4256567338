"""The recipes of MF's two tables at work."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import ConfigError
from recsparse.kernels.sgd import Side
from recsparse.models.bpr import bpr_gradient, bpr_loss
from recsparse.models.checkpoint import Arrays
from recsparse.models.sgd_state import Floats, confine, whole
from recsparse.sparsity import Evidence, Pruner

Kept = npt.NDArray[np.bool_]
Sides = tuple[Side, Side]

USERS, ITEMS = 0, 1


@dataclass
class Pruners:
    """What MF's user and item tables keep: each by its own recipe and budget, both by one, or all of it.

    Attributes:
        of: name -> the tables, ``USERS`` and ``ITEMS``, and the pruner that takes their rows, one table's below the
            other's, as those of one table.
        matrix: X (U, I).
        seed: of the samples that gradients and losses are taken over.
    """

    of: dict[str, tuple[tuple[int, ...], Pruner]]
    matrix: sp.csr_array
    seed: int

    def __bool__(self) -> bool:
        return bool(self.of)

    @property
    def kept(self) -> tuple[Kept | None, Kept | None]:
        """The masks of both tables; None for all entries."""
        masks: list[Kept | None] = [None, None]
        for tables, pruner in self.of.values():
            for table, mask in zip(tables, self._split(tables, pruner.kept), strict=True):
                masks[table] = mask
        return masks[USERS], masks[ITEMS]

    def start(self, sides: Sides) -> Sides:
        """Prune what never is dense, before the first epoch."""
        for tables, pruner in self.of.values():
            if pruner.recipe.schedule.density(0.0, 0.0) < 1.0:
                sides = self._step(tables, pruner, sides, 0, 0.0)
        return sides

    def step(self, sides: Sides, epoch: int, progress: float) -> Sides:
        """Let the recipes choose after an epoch, and confine the tables and their optimiser state to that."""
        for tables, pruner in self.of.values():
            sides = self._step(tables, pruner, sides, epoch, progress)
        return sides

    def _step(self, tables: tuple[int, ...], pruner: Pruner, sides: Sides, epoch: int, progress: float) -> Sides:
        def gradients() -> Floats:
            both = whole(sides[USERS]), whole(sides[ITEMS])
            return _stacked([bpr_gradient(self.matrix, *both, table, self.seed, epoch) for table in tables])

        def curvature() -> Floats:
            raise ConfigError("MF has no least-squares curvature; use another criterion than loss-increase.")

        def loss(rows: npt.NDArray[np.int64], kept: Kept) -> float:
            pruned = values.copy()
            pruned[rows] *= kept
            both = [whole(side) for side in sides]
            for table, part in zip(tables, self._split(tables, pruned), strict=True):
                both[table] = part
            return bpr_loss(self.matrix, both[USERS], both[ITEMS], self.seed, epoch)

        values = _stacked([whole(sides[table]) for table in tables])
        of_items = np.bincount(self.matrix.indices, minlength=self.matrix.shape[1])
        counts = _stacked([(np.diff(self.matrix.indptr), of_items)[table].astype(np.float32) for table in tables])
        found = pruner.step(Evidence(values, counts, gradients, curvature, loss), progress)
        if found is None and (pruner.support is not None or not sides[tables[0]].dim):
            return sides
        new = list(sides)
        parts = self._split(tables, values if found is None else found), self._split(tables, pruner.support)
        for table, part, mask in zip(tables, *parts, strict=True):
            new[table] = confine(sides[table], part, mask)
        return new[USERS], new[ITEMS]

    def _split(self, tables: tuple[int, ...], stacked: Any) -> list[Any]:
        """What belongs to each of the tables; None to each for None."""
        if stacked is None:
            return [None] * len(tables)
        return np.split(stacked, np.cumsum([self.matrix.shape[table] for table in tables])[:-1])

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """What :meth:`restore` needs to go on from here."""
        arrays: Arrays = {}
        progress: dict[str, Any] = {}
        for name, (_, pruner) in self.of.items():
            masks, progress[name] = pruner.state()
            arrays |= {f"{name}.{key}": mask for key, mask in masks.items()}
        return arrays, progress

    def restore(self, arrays: Arrays, progress: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        for name, (_, pruner) in self.of.items():
            start = f"{name}."
            own = {key.removeprefix(start): array for key, array in arrays.items() if key.startswith(start)}
            pruner.restore(own, progress[name])


def _stacked(tables: list[Floats]) -> Floats:
    """One table below the other; a lone one is not copied."""
    return tables[0] if len(tables) == 1 else np.concatenate(tables)

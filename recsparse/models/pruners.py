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

_NAMES = ("users", "items")


@dataclass
class Pruners:
    """What MF's user and item tables keep; each has its own recipe and budget, or none.

    Attributes:
        of: the pruner of users and that of items; None for a table that stays dense.
        matrix: X (U, I).
        seed: of the samples that gradients and losses are taken over.
    """

    of: tuple[Pruner | None, Pruner | None]
    matrix: sp.csr_array
    seed: int

    def __bool__(self) -> bool:
        return any(pruner is not None for pruner in self.of)

    @property
    def kept(self) -> tuple[Kept | None, Kept | None]:
        """The masks of both tables; None for all entries."""
        users, items = (None if pruner is None else pruner.kept for pruner in self.of)
        return users, items

    def start(self, sides: Sides) -> Sides:
        """Prune what never is dense, before the first epoch."""
        for table, pruner in enumerate(self.of):
            if pruner is not None and pruner.recipe.schedule.density(0.0, 0.0) < 1.0:
                sides = self._step(table, pruner, sides, 0, 0.0)
        return sides

    def step(self, sides: Sides, epoch: int, progress: float) -> Sides:
        """Let the recipes choose after an epoch, and confine the tables and their optimiser state to that."""
        for table, pruner in enumerate(self.of):
            if pruner is not None:
                sides = self._step(table, pruner, sides, epoch, progress)
        return sides

    def _step(self, table: int, pruner: Pruner, sides: Sides, epoch: int, progress: float) -> Sides:
        def gradients() -> Floats:
            return bpr_gradient(self.matrix, whole(sides[0]), whole(sides[1]), table, self.seed, epoch)

        def curvature() -> Floats:
            raise ConfigError("MF has no least-squares curvature; use another criterion than loss-increase.")

        def loss(rows: npt.NDArray[np.int64], kept: Kept) -> float:
            return bpr_loss(self.matrix, whole(sides[0]), whole(sides[1]), table, self.seed, epoch, rows, kept)

        values = whole(sides[table])
        of_items = np.bincount(self.matrix.indices, minlength=self.matrix.shape[1])
        counts = (np.diff(self.matrix.indptr), of_items)[table].astype(np.float32)
        found = pruner.step(Evidence(values, counts, gradients, curvature, loss), progress)
        if found is None and (pruner.support is not None or not sides[table].dim):
            return sides
        new = list(sides)
        new[table] = confine(sides[table], values if found is None else found, pruner.support)
        return new[0], new[1]

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """What :meth:`restore` needs to go on from here."""
        arrays: Arrays = {}
        progress: dict[str, Any] = {}
        for name, pruner in zip(_NAMES, self.of, strict=True):
            if pruner is not None:
                masks, progress[name] = pruner.state()
                arrays |= {f"{name}.{key}": mask for key, mask in masks.items()}
        return arrays, progress

    def restore(self, arrays: Arrays, progress: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        for name, pruner in zip(_NAMES, self.of, strict=True):
            if pruner is not None:
                start = f"{name}."
                own = {key.removeprefix(start): array for key, array in arrays.items() if key.startswith(start)}
                pruner.restore(own, progress[name])

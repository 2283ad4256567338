"""The state of alternating least squares between two epochs: all that a killed run needs to go on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from recsparse.models.checkpoint import Arrays, read_checkpoint, write_checkpoint
from recsparse.models.least_squares import Dense, Factors
from recsparse.sparsity import Pruner


class Learned(NamedTuple):
    """What alternations improve.

    Attributes:
        users: U (U, D).
        items: V (I, D), dense or on its support; with a basis S (I, M).
        basis: B (M, D), of a low-rank V = S B.
    """

    users: Dense
    items: Factors
    basis: Dense | None = None

    def is_finite(self) -> bool:
        """Whether all numbers are; else training has diverged."""
        values = (part if isinstance(part, np.ndarray) else part.data for part in self if part is not None)
        return all(bool(np.isfinite(each).all()) for each in values)


@dataclass
class Alternation:
    """Factors in training, the best so far, the recipe's progress and what validation said.

    Attributes:
        now: the factors.
        pruner: carries the recipe; None for a dense table.
        epochs: how many are done.
        best: factors of the best epoch.
        best_epoch: its number, from 1; 0 before the first.
        validation: the metric after each epoch.
    """

    now: Learned
    pruner: Pruner | None = None
    epochs: int = 0
    best: Learned | None = None
    best_epoch: int = 0
    validation: list[float] = field(default_factory=list)

    def judge(self, metric: float | None) -> None:
        """Count an epoch; it is the best unless an earlier metric was as good. A recipe always ends with its last."""
        self.epochs += 1
        if metric is not None:
            self.validation.append(metric)
        if metric is None or self.pruner is not None or self.best_epoch == 0 or metric > self._best_metric():
            self.best, self.best_epoch = self.now, self.epochs

    def is_stale(self, patience: int | None) -> bool:
        """Whether ``patience`` epochs went by without a better metric."""
        if patience is None or not self.validation or self.pruner is not None:
            return False
        return self.epochs - self.best_epoch >= patience

    def write(self, path: Path, digest: str) -> None:
        """Replace the checkpoint at ``path``."""
        arrays = _pack("", self.now)
        if self.best is not None and self.best_epoch != self.epochs:
            arrays |= _pack("best.", self.best)
        progress = {"epochs": self.epochs, "best_epoch": self.best_epoch, "validation": self.validation}
        if self.pruner is not None:
            masks, progress["pruner"] = self.pruner.state()
            arrays |= masks
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_checkpoint(path, arrays, progress, digest)

    @classmethod
    def read(cls, path: Path, digest: str, pruner: Pruner | None) -> Self | None:
        """The state at ``path``, and ``pruner`` as it was then; None where there is no checkpoint yet."""
        found = read_checkpoint(path, digest)
        if found is None:
            return None
        arrays, progress = found
        now = _unpack("", arrays)
        best = _unpack("best.", arrays) if "best.users" in arrays else now
        if pruner is not None:
            pruner.restore(arrays, progress["pruner"])
        return cls(now, pruner, progress["epochs"], best, progress["best_epoch"], progress["validation"])

    def _best_metric(self) -> float:
        return self.validation[self.best_epoch - 1]


def _pack(prefix: str, learned: Learned) -> Arrays:
    users, items, basis = learned
    arrays = {"users": users} | ({} if basis is None else {"basis": basis})
    if isinstance(items, np.ndarray):
        arrays["items"] = items
    else:
        shape = np.array(items.shape, dtype=np.int64)
        parts = {"data": items.data, "indices": items.indices, "indptr": items.indptr, "shape": shape}
        arrays |= {f"items.{part}": array for part, array in parts.items()}
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _unpack(prefix: str, arrays: Arrays) -> Learned:
    users, basis = arrays[f"{prefix}users"], arrays.get(f"{prefix}basis")
    if f"{prefix}items" in arrays:
        return Learned(users, arrays[f"{prefix}items"], basis)
    parts = ("data", "indices", "indptr", "shape")
    data, indices, indptr, shape = (arrays[f"{prefix}items.{part}"] for part in parts)
    return Learned(users, sp.csr_array((data, indices, indptr), shape=tuple(shape.tolist())), basis)

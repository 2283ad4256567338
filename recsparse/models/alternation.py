"""The state of alternating least squares between two epochs: all that a killed run needs to go on."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from recsparse.models.checkpoint import Arrays, read_checkpoint, write_checkpoint
from recsparse.models.least_squares import Dense, Factors
from recsparse.sparsity import Pruner


@dataclass
class Alternation:
    """Factors in training, the best so far, the recipe's progress and what validation said.

    Attributes:
        users: U (U, D).
        items: V (I, D), dense or on its support.
        pruner: carries the recipe; None for a dense table.
        epochs: how many are done.
        best: users and items of the best epoch.
        best_epoch: its number, from 1; 0 before the first.
        validation: the metric after each epoch.
    """

    users: Dense
    items: Factors
    pruner: Pruner | None = None
    epochs: int = 0
    best: tuple[Dense, Factors] | None = None
    best_epoch: int = 0
    validation: list[float] = field(default_factory=list)

    def judge(self, metric: float | None) -> None:
        """Count an epoch; it is the best unless an earlier metric was as good. A recipe always ends with its last."""
        self.epochs += 1
        if metric is not None:
            self.validation.append(metric)
        if metric is None or self.pruner is not None or self.best_epoch == 0 or metric > self._best_metric():
            self.best, self.best_epoch = (self.users, self.items), self.epochs

    def is_stale(self, patience: int | None) -> bool:
        """Whether ``patience`` epochs went by without a better metric."""
        if patience is None or not self.validation or self.pruner is not None:
            return False
        return self.epochs - self.best_epoch >= patience

    def write(self, path: Path, digest: str) -> None:
        """Replace the checkpoint at ``path``."""
        arrays = {"users": self.users} | _pack("items", self.items)
        if self.best is not None and self.best_epoch != self.epochs:
            arrays |= {"best.users": self.best[0]} | _pack("best.items", self.best[1])
        progress = {"epochs": self.epochs, "best_epoch": self.best_epoch, "validation": self.validation}
        if self.pruner is not None:
            masks, progress["pruner"] = self.pruner.state()
            arrays |= masks
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        write_checkpoint(path, arrays, progress, digest)

    def read(self, path: Path, digest: str) -> None:
        """Go on from the checkpoint at ``path``, if there is one."""
        found = read_checkpoint(path, digest)
        if found is None:
            return
        arrays, progress = found
        self.users, self.items = arrays["users"], _unpack("items", arrays)
        self.epochs, self.best_epoch = progress["epochs"], progress["best_epoch"]
        self.validation = progress["validation"]
        self.best = self.users, self.items
        if "best.users" in arrays:
            self.best = arrays["best.users"], _unpack("best.items", arrays)
        if self.pruner is not None:
            self.pruner.restore(arrays, progress["pruner"])

    def _best_metric(self) -> float:
        return self.validation[self.best_epoch - 1]


def _pack(name: str, factors: Factors) -> Arrays:
    if isinstance(factors, np.ndarray):
        return {name: factors}
    shape = np.array(factors.shape, dtype=np.int64)
    parts = {"data": factors.data, "indices": factors.indices, "indptr": factors.indptr, "shape": shape}
    return {f"{name}.{part}": array for part, array in parts.items()}


def _unpack(name: str, arrays: Arrays) -> Factors:
    if name in arrays:
        return arrays[name]
    data, indices, indptr, shape = (arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr", "shape"))
    return sp.csr_array((data, indices, indptr), shape=tuple(shape.tolist()))

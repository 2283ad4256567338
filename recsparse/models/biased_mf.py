"""Matrix factorisation of explicit ratings, with biases."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import DivergenceError
from recsparse.interactions.interactions import Interactions
from recsparse.kernels.lapack import ROUTINES
from recsparse.kernels.ratings import solve_ratings
from recsparse.models.factors import FactorModel
from recsparse.models.settings import check_epochs, check_number
from recsparse.parallel import for_ranges
from recsparse.tables import pack
from recsparse.tables.values import check_value_type
from recsparse.tensors import load_tensors, save_tensors

MEAN = "mean.safetensors"

Floats = npt.NDArray[np.float32]


class BiasedMF(FactorModel):
    """Predict ratings: ``r(u, i) = mean + b_u + b_i + p_u·q_i``; a score is a rating.

    Minimises ``Σ_{(u,i) known} (x_ui - r(u, i))² + reg (Σ_u n_u ||(p_u, b_u)||² + Σ_i n_i ||(q_i, b_i)||²)`` by
    alternating least squares, with n the ratings of a row (Zhou et al., "Large-scale Parallel Collaborative Filtering
    for the Netflix Prize", 2008, eq. 3, biases as Koren 2009). Biases and factors of a row are solved for together. The
    same at any ``n_jobs``. Measure it by :func:`recsparse.evaluation.rating_errors`; as a ranking it is weak, for it
    never learns from what was not rated.

    If training diverges (:class:`recsparse.errors.DivergenceError`), the model keeps the last good epoch.

    Args:
        dim: columns of p and q.
        epochs: alternations of a user and an item half-step.
        reg: ridge a rating.
        value_type: how the item table's values are stored.
        init_std: standard deviation of the initial q.
        random_state: seed of it.
        n_jobs: threads; None and -1 mean all cores.

    Attributes:
        item_table_: packed (I, dim + 2): q, b_i and a column of ones, so that a query is (p, 1, mean + b_u).
        mean_: mean rating.

    Cost of an epoch: O(nnz D² + (U + I) D³).

    Example:
        >>> model = BiasedMF(dim=1, reg=0.01).fit(sp.csr_array([[5.0, 1, 0], [5, 1, 1], [4, 1, 2]]))
        >>> bool(model.score_pairs([0], [0])[0] > 3 > model.score_pairs([0], [2])[0])
        True
    """

    kind = "biased-mf"
    search_space: ClassVar[dict[str, Any]] = {
        "dim": {"low": 4, "high": 128, "log": True},
        "reg": {"low": 0.005, "high": 0.5, "log": True},
    }

    mean_: float

    def __init__(
        self,
        dim: int = 32,
        *,
        epochs: int = 15,
        reg: float = 0.05,
        value_type: str = "fp32",
        init_std: float = 0.1,
        random_state: int = 0,
        n_jobs: int | None = None,
    ) -> None:
        self.dim = dim
        self.epochs = epochs
        self.reg = reg
        self.value_type = value_type
        self.init_std = init_std
        self.random_state = random_state
        self.n_jobs = n_jobs

    def _fit(self, interactions: Interactions) -> None:
        check_epochs(self)
        check_number(self, "reg", "init_std")
        check_value_type(self.value_type)
        by_user = interactions.matrix
        by_item = sp.csr_array(by_user.T)
        self.mean_ = float(by_user.data.mean(dtype=np.float64))
        rng = np.random.default_rng(self.random_state)
        items = np.zeros((by_user.shape[1], self.dim + 1), dtype=np.float32)
        items[:, :-1] = self.init_std * rng.standard_normal((len(items), self.dim), dtype=np.float32)
        for epoch in range(self.epochs):
            users = self._solve(by_user, items)
            last, items = items, self._solve(by_item, users)
            if not (np.isfinite(users).all() and np.isfinite(items).all()):
                self._store(last)
                raise DivergenceError(
                    f"BiasedMF diverged in epoch {epoch + 1} (reg {self.reg}, ratings {by_user.data.min():g} to "
                    f"{by_user.data.max():g}); the model keeps epoch {epoch}. Raise reg, or scale the ratings."
                )
        self._store(items)

    def _store(self, items: Floats) -> None:
        table = np.concatenate([items, np.ones((len(items), 1), dtype=np.float32)], axis=1)
        self.item_table_ = pack(table, value_type=self.value_type)

    def _solve(self, side: sp.csr_array, other: Floats) -> Floats:
        """A half-step: (factors, bias) of each row of ``side`` given the other side's, (R, D + 1)."""
        features = other.copy()
        features[:, -1] = 1
        targets = (side.data - self.mean_ - other[side.indices, -1]).astype(np.float32)
        out = np.empty((side.shape[0], other.shape[1]), dtype=np.float32)
        task = (ROUTINES, side.indptr, side.indices, targets, features, np.float32(self.reg), out)
        for_ranges(lambda start, stop: solve_ratings(start, stop, *task), len(out), step=64, n_jobs=self.n_jobs)
        return out

    def _fold_in(self, histories: sp.csr_array) -> Floats:
        users = self._solve(histories, np.ascontiguousarray(self.item_table_.to_dense()[:, :-1]))
        queries = np.ones((len(users), self.dim + 2), dtype=np.float32)
        queries[:, : self.dim] = users[:, :-1]
        queries[:, -1] = self.mean_ + users[:, -1]
        return queries

    def _save_state(self, directory: Path) -> None:
        super()._save_state(directory)
        save_tensors({"mean": np.array([self.mean_])}, directory / MEAN)

    def _load_state(self, directory: Path) -> None:
        super()._load_state(directory)
        self.mean_ = float(load_tensors(directory / MEAN, "mean")["mean"][0])

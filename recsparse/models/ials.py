"""iALS: matrix factorisation of implicit feedback by alternating least squares, dense or on a sparse item table."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError
from recsparse.interactions.interactions import Interactions
from recsparse.models.factors import FactorModel
from recsparse.models.least_squares import Dense, Factors, ImplicitLoss
from recsparse.sparsity import Evidence, Recipe
from recsparse.tables import pack

_CG_STEPS = 2


class IALS(FactorModel):
    """Implicit alternating least squares, its item table dense or sparse by a recipe.

    The loss is that of :class:`recsparse.models.least_squares.ImplicitLoss`, with regularisation scaled by frequency
    (Hu, Koren and Volinsky 2008; Rendle et al., "Revisiting the performance of iALS on item recommendation
    benchmarks", 2021). Each half-step solves every row exactly. With a recipe, the item table is pruned on its
    schedule, and from then on each item is solved exactly on its support. Users are never stored: they are folded in,
    by one exact solve on the packed table.

    The result is the same, byte for byte, at any ``n_jobs`` on one machine.

    Args:
        dim: columns of the item table, D.
        epochs: alternations of a user and an item half-step.
        alpha0: weight of unobserved pairs (an observed one weighs its value, usually 1).
        reg: strength of the regularisation.
        nu: its dependence on frequency, from 0 (none) to 1 (proportional).
        solver: "cholesky" solves each half-step exactly; "cg" takes two steps of conjugate gradients towards it from
            the last epoch's factors (:meth:`ImplicitLoss.refine`), which reaches the same quality in as many epochs, in
            a fraction of the time. Once a recipe has pruned the table, every solve is exact.
        recipe: how the item table becomes sparse; None keeps it dense.
        value_type: how the item table's values are stored: fp32, fp16, int8, int4, ...
        init_std: standard deviation of the initial factors times sqrt(dim).
        random_state: seed of the initial factors.
        n_jobs: threads; None and -1 mean all cores.

    Attributes:
        item_table_: the packed item table, (I, D).

    Cost of an epoch: O(nnz D² + (U + I) D³) dense; with K entries an item O(nnz K² + U D³ + I K³).

    Example:
        >>> import scipy.sparse as sp
        >>> model = IALS(dim=2, epochs=5).fit(sp.csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
        >>> model.recommend([0], k=1, exclude_seen=False)["item_id"].isin([0, 1]).all()
        np.True_
    """

    kind = "ials"

    def __init__(
        self,
        dim: int = 64,
        *,
        epochs: int = 10,
        alpha0: float = 0.1,
        reg: float = 0.01,
        nu: float = 1.0,
        solver: Literal["cholesky", "cg"] = "cholesky",
        recipe: Recipe | dict[str, Any] | None = None,
        value_type: str = "fp32",
        init_std: float = 0.1,
        random_state: int = 0,
        n_jobs: int | None = None,
    ) -> None:
        self.dim = dim
        self.epochs = epochs
        self.alpha0 = alpha0
        self.reg = reg
        self.nu = nu
        self.solver = solver
        self.recipe = recipe
        self.value_type = value_type
        self.init_std = init_std
        self.random_state = random_state
        self.n_jobs = n_jobs

    def _fit(self, interactions: Interactions) -> None:
        self._check(interactions)
        by_user = interactions.matrix
        by_item = sp.csr_array(by_user.T)
        by_item.sort_indices()
        loss = self._loss()
        recipe = None if self.recipe is None else Recipe.parse(self.recipe)
        rng = np.random.default_rng(self.random_state)
        scale = self.init_std / np.sqrt(self.dim)
        items: Factors = scale * rng.standard_normal((by_item.shape[0], self.dim), dtype=np.float32)
        users = np.zeros((by_user.shape[0], self.dim), dtype=np.float32)
        kept: npt.NDArray[np.bool_] | None = None
        for epoch in range(self.epochs):
            if kept is not None:
                users = loss.solve(by_user, items)
                items = loss.solve_on_support(by_item, users, items)[0]
            elif self.solver == "cg":
                items, users = loss.refine(by_user, items, users, _CG_STEPS)
                users, items = loss.refine(by_item, users, items, _CG_STEPS)
            else:
                users = loss.solve(by_user, items)
                items = loss.solve(by_item, users)
            if recipe is not None:
                density = recipe.density_at((epoch + 1) / self.epochs)
                if density < 1.0:
                    items, kept = self._prune(loss, recipe, density, by_item, users, items, kept)
            self._check_finite(items, epoch)
        values = items if isinstance(items, np.ndarray) else items.toarray()
        self.item_table_ = pack(values, kept, value_type=self.value_type)

    def _prune(
        self,
        loss: ImplicitLoss,
        recipe: Recipe,
        density: float,
        by_item: sp.csr_array,
        users: Dense,
        items: Factors,
        kept: npt.NDArray[np.bool_] | None,
    ) -> tuple[sp.csr_array, npt.NDArray[np.bool_]]:
        """Choose the entries to keep and solve the items again on them."""
        values = items if isinstance(items, np.ndarray) else items.toarray()

        def curvature() -> Dense:
            support = _pattern(np.ones_like(values, dtype=np.bool_) if kept is None else kept)
            bends = np.zeros_like(values)
            bends[support.nonzero()] = loss.solve_on_support(by_item, users, support, curvature=True)[1]
            return bends

        evidence = Evidence(
            values=values,
            counts=np.diff(by_item.indptr),
            gradients=lambda: loss.gradient(by_item, users, values),
            curvature=curvature,
        )
        kept = recipe.keep(evidence, density, kept)
        return loss.solve_on_support(by_item, users, _pattern(kept))[0], kept

    def _fold_in(self, histories: sp.csr_array) -> Dense:
        factors, shared = self._folding()
        return self._loss().solve(histories, factors, shared)

    def _folding(self) -> tuple[Factors, Dense]:
        """The packed table's values as the solver takes them, and the matrix all users share."""
        values = self.item_table_.to_dense()
        factors: Factors = sp.csr_array(values) if np.count_nonzero(values) < 0.25 * values.size else values
        return factors, self._loss().shared(factors)

    def _loss(self) -> ImplicitLoss:
        return ImplicitLoss(self.alpha0, self.reg, self.nu, self.n_jobs)

    def _check(self, interactions: Interactions) -> None:
        for name, valid, allowed in (
            ("dim", self.dim >= 1, "at least 1"),
            ("epochs", self.epochs >= 1, "at least 1"),
            ("alpha0", self.alpha0 >= 0, "at least 0"),
            ("reg", self.reg > 0, "above 0"),
            ("solver", self.solver in ("cholesky", "cg"), "cholesky or cg"),
        ):
            if not valid:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be {allowed}.")
        if (interactions.matrix.data < 0).any():
            raise DataError(
                f"iALS takes values as weights and {interactions.matrix.data.min()} is negative; "
                "drop such interactions or map them to weights."
            )

    def _check_finite(self, items: Factors, epoch: int) -> None:
        values = items if isinstance(items, np.ndarray) else items.data
        if not np.isfinite(values).all():
            raise DataError(f"iALS diverged in epoch {epoch + 1} (reg {self.reg}, alpha0 {self.alpha0}); raise reg.")


def _pattern(kept: npt.NDArray[np.bool_]) -> sp.csr_array:
    indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1), dtype=np.int64)])
    indices = np.nonzero(kept)[1].astype(np.int32)
    return sp.csr_array((np.ones(len(indices), dtype=np.float32), indices, indptr), shape=kept.shape)

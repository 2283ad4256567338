"""iALS whose item table is low-rank x sparse: a row picks a few vectors of a learned basis."""

from copy import copy
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_is_fitted

from recsparse.errors import ConfigError
from recsparse.interactions.interactions import Interactions
from recsparse.models.ials import CG_STEPS, IALS
from recsparse.models.least_squares import Dense, Factors, Sides
from recsparse.models.support import Kept, pattern, prune_items
from recsparse.sparsity import Pruner, Recipe
from recsparse.tables import FactoredTable, Mask, choose_layout, pack


class LowRankIALS(IALS):
    """``V = S B``: S (I, M) sparse under any recipe, B (M, D) a small basis; both learned with the loss of iALS.

    Training starts with a dense V and a basis of ``basis`` of its rows, normalised. Then, in turns: users are solved on
    V (D columns); the rows of S exactly on their supports, with the users seen through the basis, ``U Bᵀ``, as factors;
    and B as the least-squares fit of S B to the items' unconstrained solutions, each item with the weight of its
    interactions (the method of optimal directions of Engan et al. 1999). With ``basis`` above ``dim`` the basis is
    overcomplete: few of many directions describe an item better than few of D columns. All epochs are trained, from the
    first: ``fit`` refuses validation, checkpoints and callbacks.

    Args:
        dim: columns of V, D; what a user is represented by.
        basis: vectors of the basis, M.
        epochs: alternations, a fifth of them dense.
        alpha0: as in :class:`IALS`.
        reg: as in :class:`IALS`; it holds S in check.
        nu: as in :class:`IALS`.
        degree_power: as in :class:`IALS`.
        recipe: how S becomes sparse.
        value_type: of S; B has int8, or what is finer.
        random_state: seed.
        n_jobs: threads.

    Cost of an epoch: O(nnz (D² + K²) + U D³ + I (D³ + K³) + I M D) with K entries a row of S.

    Example:
        >>> model = LowRankIALS(dim=2, basis=4, recipe={"density": 0.5}, epochs=10)
        >>> model.fit(sp.csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]])).item_table_.layout.endswith("x dense")
        True
    """

    kind = "low-rank-ials"

    item_table_: FactoredTable

    def __init__(
        self,
        dim: int = 64,
        basis: int = 128,
        *,
        epochs: int = 15,
        alpha0: float = 0.1,
        reg: float = 0.01,
        nu: float = 1.0,
        degree_power: float = 0.0,
        recipe: Recipe | dict[str, Any] | None = None,
        value_type: str = "fp32",
        random_state: int = 0,
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(
            dim, epochs=epochs, alpha0=alpha0, reg=reg, nu=nu, degree_power=degree_power, solver="cg", recipe=recipe,
            value_type=value_type, random_state=random_state, n_jobs=n_jobs,
        )  # fmt: skip
        self.basis = basis

    def _fit(self, interactions: Interactions) -> None:
        if any(given is not None for given in (self._validation, self._checkpoint, self._on_epoch)):
            raise ConfigError(f"{self.kind} takes no validation, checkpoint or on_epoch; leave them out, or use ials.")
        self._check(interactions)
        for name, least in (("basis", 1), ("epochs", 2)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be at least {least}.")
        sides = self._sides(interactions)
        pruner = None if self.recipe is None else Pruner(Recipe.parse(self.recipe), self._size_of)
        rng = np.random.default_rng(self.random_state)
        values = self._initial(rng, interactions.shape[1])
        users = np.zeros((interactions.shape[0], self.dim), dtype=np.float32)
        dense = max(1, self.epochs // 5)
        for _ in range(dense):
            values, users = sides.loss.refine(sides.by_user, values, users, CG_STEPS)
            users, values = sides.loss.refine(sides.by_item, users, values, CG_STEPS)
        basis = self._first_basis(rng, values, np.diff(sides.by_item.indptr))
        mixture: Factors = sides.loss.solve(sides.by_item, users @ basis.T)
        for epoch in range(dense, self.epochs):
            users = sides.loss.solve(sides.by_user, np.asarray(mixture @ basis, dtype=np.float32))
            basis = _fitted_basis(sides, users, mixture, basis)
            seen = users @ basis.T
            support = None if pruner is None else pruner.support
            if support is None:
                mixture = sides.loss.solve(sides.by_item, seen)
            else:
                mixture = sides.loss.solve_on_support(sides.by_item, seen, pattern(support))[0]
            if pruner is not None:
                mixture = prune_items(sides, seen, mixture, pruner, (epoch + 1) / self.epochs)
            self._check_finite(mixture, epoch)
        values = mixture if isinstance(mixture, np.ndarray) else mixture.toarray()
        self._store(values, basis, None if pruner is None else pruner.kept)

    def repack(self, value_type: str) -> Self:
        """A fitted copy with S in another value type."""
        check_is_fitted(self, "item_table_")
        table = self.item_table_
        other = copy(self)
        other.set_params(value_type=value_type)
        values = table.sparse.to_dense()
        other._store(values, table.basis.to_dense(), values != 0)
        return other

    def _store(self, values: Dense, basis: Dense, kept: Kept | None) -> None:
        of_basis = self.value_type if self.value_type in ("fp32", "fp16", "bf16") else "int8"
        self.item_table_ = FactoredTable(
            pack(values, kept, value_type=self.value_type), pack(basis, layout="dense", value_type=of_basis)
        )

    def _size_of(self, kept: Kept) -> int:
        of_basis = self.value_type if self.value_type in ("fp32", "fp16", "bf16") else "int8"
        whole = Mask.from_dense(np.ones((self.basis, self.dim), dtype=np.bool_))
        return (
            choose_layout(Mask.from_dense(kept), value_type=self.value_type).nbytes
            + choose_layout(whole, value_type=of_basis).nbytes
        )

    def _first_basis(self, rng: np.random.Generator, values: Dense, counts: Any) -> Dense:
        """Rows of V of length 1, likelier the more interactions they have; random directions where they are too few."""
        usable = np.flatnonzero(counts)
        taken = rng.choice(usable, min(self.basis, len(usable)), replace=False, p=counts[usable] / counts[usable].sum())
        rows = np.concatenate([values[taken], rng.standard_normal((self.basis - len(taken), self.dim))])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def _fitted_basis(sides: Sides, users: Dense, mixture: Factors, basis: Dense) -> Dense:
    """The basis of least squared distance between S B and the items' own solutions, rows of length 1.

    A vector that no row picks stays as it is.
    """
    wanted = sides.loss.solve(sides.by_item, users)
    weighted = sp.csr_array(sp.diags_array(np.diff(sides.by_item.indptr).astype(np.float64)) @ sp.csr_array(mixture))
    gram = np.asarray((sp.csr_array(mixture).T @ weighted).toarray(), dtype=np.float64)
    used = gram.diagonal() > 0
    ridge = 1e-3 * max(float(gram.diagonal().mean()), 1e-12)
    gram[np.diag_indices(len(gram))] += ridge
    target = np.asarray(weighted.T @ wanted.astype(np.float64)) + ridge * basis
    found = np.where(used[:, None], np.linalg.solve(gram, target), basis)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    return np.where(length > 0, found / np.maximum(length, 1e-30), basis).astype(np.float32)

"""iALS whose item table is low-rank x sparse: a row picks a few vectors of a learned basis."""

from copy import copy
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from sklearn.utils.validation import check_is_fitted

from recsparse.interactions.interactions import Interactions
from recsparse.models.alternation import Learned
from recsparse.models.ials import CG_STEPS, IALS
from recsparse.models.least_squares import Dense, Factors, Sides
from recsparse.models.settings import check_whole
from recsparse.models.support import pattern, prune_items
from recsparse.sparsity import Pruner, Recipe
from recsparse.tables import FactoredTable, Mask, choose_layout, pack


class LowRankIALS(IALS):
    """``V = S B``: S (I, M) sparse under any recipe, B (M, D) a small basis; both learned with the loss of iALS.

    Training starts with a dense V and a basis of ``basis`` of its rows, normalised. Then, in turns: users are solved on
    V (D columns); the rows of S exactly on their supports, with the users seen through the basis, ``U Bᵀ``, as factors;
    and B as the least-squares fit of S B to the items' unconstrained solutions, each item with the weight of its
    interactions (the method of optimal directions of Engan et al. 1999). With ``basis`` above ``dim`` the basis is
    overcomplete: few of many directions describe an item better than few of D columns. A fifth of the
    epochs come before S: until then V is dense.

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
        patience: as in :class:`IALS`.
        metric: as in :class:`IALS`.
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
        patience: int | None = 5,
        metric: str = "ndcg@20",
        random_state: int = 0,
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(
            dim, epochs=epochs, alpha0=alpha0, reg=reg, nu=nu, degree_power=degree_power, solver="cg", recipe=recipe,
            value_type=value_type, patience=patience, metric=metric, random_state=random_state, n_jobs=n_jobs,
        )  # fmt: skip
        self.basis = basis

    @property
    def _columns(self) -> int:
        return self.basis

    def _begin(self, sides: Sides, pruner: Pruner | None) -> Learned:
        return super()._begin(sides, None)  # dense, whatever becomes of S

    def _epoch(self, sides: Sides, learned: Learned, pruner: Pruner | None, number: int) -> Learned:
        """Improve V while it is dense, then U, B and S in turns."""
        users, items, basis = learned
        if number < max(1, self.epochs // 5):
            assert isinstance(items, np.ndarray)  # noqa: S101 (S comes later)
            items, users = sides.loss.refine(sides.by_user, items, users, CG_STEPS)
            users, items = sides.loss.refine(sides.by_item, users, items, CG_STEPS)
            return Learned(users, items)
        if basis is None:
            basis = self._first_basis(items, np.diff(sides.by_item.indptr))
            items = sides.loss.solve(sides.by_item, users @ basis.T)
        users = sides.loss.solve(sides.by_user, np.asarray(items @ basis, dtype=np.float32))
        basis = _fitted_basis(sides, users, items, basis)
        seen = users @ basis.T
        support = None if pruner is None else pruner.support
        if support is None:
            items = sides.loss.solve(sides.by_item, seen)
        else:
            items = sides.loss.solve_on_support(sides.by_item, seen, pattern(support))[0]
        if pruner is not None and Learned(users, items, basis).is_finite():
            items = prune_items(sides, seen, items, pruner, (number + 1) / self.epochs)
        return Learned(users, items, basis)

    def _finish(self, sides: Sides, learned: Learned, kept: Mask | None) -> None:
        _, items, basis = learned
        values = items if isinstance(items, np.ndarray) else items.toarray()
        self._store(values, np.eye(self.dim, dtype=np.float32) if basis is None else basis, kept)

    def _check(self, interactions: Interactions) -> None:
        super()._check(interactions)
        check_whole(self, "basis")
        check_whole(self, "epochs", least=2)

    def repack(self, value_type: str) -> Self:
        """A fitted copy with S in another value type."""
        check_is_fitted(self, "item_table_")
        table = self.item_table_
        other = copy(self)
        other.set_params(value_type=value_type)
        values = table.sparse.to_dense()
        other._store(values, table.basis.to_dense(), Mask.from_dense(values != 0))
        return other

    def _store(self, values: Dense, basis: Dense, kept: Mask | None) -> None:
        of_basis = self.value_type if self.value_type in ("fp32", "fp16", "bf16") else "int8"
        self.item_table_ = FactoredTable(
            pack(values, kept and kept.to_elements(), value_type=self.value_type),
            pack(basis, layout="dense", value_type=of_basis),
        )

    def _size_of(self, kept: Mask) -> int:
        of_basis = self.value_type if self.value_type in ("fp32", "fp16", "bf16") else "int8"
        whole = Mask.from_dense(np.ones((self.basis, self.dim), dtype=np.bool_))
        return (
            choose_layout(kept.to_elements(), value_type=self.value_type).nbytes
            + choose_layout(whole, value_type=of_basis).nbytes
        )

    def _first_basis(self, values: Dense, counts: Any) -> Dense:
        """Rows of V of length 1, likelier the more interactions they have; random directions where they are too few."""
        rng = np.random.default_rng(self.random_state)
        self._initial(rng, len(values))  # draw on from where the first epoch's factors ended
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

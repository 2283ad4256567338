"""The entries an item table keeps, and solving on them."""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.models.least_squares import Dense, Factors, Sides
from recsparse.sparsity import Evidence, Pruner

Kept = npt.NDArray[np.bool_]


def prune_items(sides: Sides, users: Dense, items: Factors, pruner: Pruner, progress: float) -> Factors:
    """Let the recipe decide what the items keep, and solve them again on that unless it fixed their values."""
    values = items if isinstance(items, np.ndarray) else items.toarray()
    shared, prior = sides.shared_of_users(users), sides.item_prior(items)

    def solve(support: sp.csr_array, curvature: bool = False) -> tuple[sp.csr_array, Dense]:
        return sides.loss.solve_on_support(
            sides.by_item, users, support, curvature=curvature, shared=shared, prior=prior
        )

    def curvature() -> Dense:
        support = pattern(np.ones_like(values, dtype=np.bool_) if pruner.support is None else pruner.support)
        bends = np.zeros_like(values)
        bends[support.nonzero()] = solve(support, curvature=True)[1]
        return bends

    def loss(rows: npt.NDArray[np.int64], kept: Kept) -> float:
        own, pull = sp.csr_array(sides.by_item[rows]), None if prior is None else prior[rows]
        solved = sides.loss.solve_on_support(own, users, pattern(kept), shared=shared, prior=pull)[0].toarray()
        return sides.loss.of_rows(own, users, solved, shared, pull)

    evidence = Evidence(
        values=values,
        counts=np.diff(sides.by_item.indptr),
        gradients=lambda: sides.loss.gradient(sides.by_item, users, values, shared, prior),
        curvature=curvature,
        loss=loss,
    )
    pruned = pruner.step(evidence, progress)
    if pruned is None or pruner.kept is None:
        return items
    support = pattern(pruner.kept)
    if pruner.fixed:
        support.data[:] = pruned[pruner.kept]
        return support
    return solve(support)[0]


def pattern(kept: Kept) -> sp.csr_array:
    """A mask (R, D) as a CSR of ones."""
    indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1), dtype=np.int64)])
    indices = np.nonzero(kept)[1].astype(np.int32)
    return sp.csr_array((np.ones(len(indices), dtype=np.float32), indices, indptr), shape=kept.shape)

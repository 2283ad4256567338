"""The entries an item table keeps, and solving on them."""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.models.least_squares import Dense, Factors, Sides
from recsparse.sparsity import Evidence, Pruner
from recsparse.tables import Mask

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
        support = pattern(pruner.support or Mask.full(values.shape))
        bends = np.zeros_like(values)
        bends[support.nonzero()] = solve(support, curvature=True)[1]
        return bends

    def loss(rows: npt.NDArray[np.int64], kept: Kept) -> float:
        own, pull = sp.csr_array(sides.by_item[rows]), None if prior is None else prior[rows]
        support = pattern(Mask.from_dense(kept))
        solved = sides.loss.solve_on_support(own, users, support, shared=shared, prior=pull)[0].toarray()
        return sides.loss.of_rows(own, users, solved, shared, pull)

    evidence = Evidence(
        values=values,
        counts=np.diff(sides.by_item.indptr),
        gradients=lambda: sides.loss.gradient(sides.by_item, users, values, shared, prior),
        curvature=curvature,
        loss=loss,
    )
    if not pruner.step(evidence, progress) or pruner.kept is None:
        return items
    support = pattern(pruner.kept)
    if pruner.values is not None:
        support.data[:] = pruner.values[support.nonzero()]
        return support
    return solve(support)[0]


def pattern(kept: Mask) -> sp.csr_array:
    """A mask as a CSR of ones."""
    indptr = np.concatenate([[0], np.cumsum(kept.row_counts)])
    return sp.csr_array((np.ones(kept.kept, dtype=np.float32), kept.columns(), indptr), shape=kept.shape)

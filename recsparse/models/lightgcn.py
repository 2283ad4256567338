"""LightGCN's propagation: vectors averaged over the user-item graph."""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float32]


def propagate(matrix: sp.csr_array, users: Floats, items: Floats, layers: int) -> tuple[Floats, Floats]:
    """Average vectors over ``layers`` steps on the graph: ``1 / (layers + 1) Σ_l Â^l E`` (He et al. 2020, eqs. 7, 8).

    ``Â`` joins users and items by ``D_u^-½ X D_i^-½``. Cost: O(layers nnz D).

    Example:
        >>> one = np.ones((1, 1), dtype=np.float32)
        >>> propagate(sp.csr_array([[1.0]]), one, 3 * one, 1)
        (array([[2.]], dtype=float32), array([[2.]], dtype=float32))
    """
    known = normalised(matrix)
    backwards = sp.csr_array(known.T)
    user_sum, item_sum = users.copy(), items.copy()
    for _ in range(layers):
        users, items = known @ items, backwards @ users
        user_sum += users
        item_sum += items
    return user_sum / np.float32(layers + 1), item_sum / np.float32(layers + 1)


def normalised(matrix: sp.csr_array) -> sp.csr_array:
    """``D_u^-½ X D_i^-½`` of X's pattern, (U, I) float32."""
    known = sp.csr_array((np.ones(matrix.nnz, dtype=np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
    scales = [1 / np.sqrt(np.maximum(np.asarray(known.sum(axis=axis)), 1)) for axis in (1, 0)]
    known.data *= np.repeat(scales[0], np.diff(known.indptr)) * scales[1][known.indices]
    return known

"""EASE for catalogues where an items x items array does not fit."""

from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.interactions.interactions import Interactions
from recsparse.kernels.lapack import ROUTINES
from recsparse.kernels.sparse_ease import solve_supports
from recsparse.models.item_item import ItemItem
from recsparse.models.item_knn import strongest
from recsparse.models.settings import check_number, check_whole
from recsparse.parallel import for_ranges

_BLOCK = 1024


class SparseEASE(ItemItem):
    """EASE's regression of each item on its ``neighbours`` only: sparse weights, exact on their support.

    For item i with support S, its nearest items by cosine, ``min_b ||x_i - X_S b||² + reg ||b||²``. It has the cost and
    memory of many small systems instead of one large one; with all items as neighbours, and
    every pair of items shared by somebody, it is EASE. (SANSA, Spišák et
    al., RecSys 2023, approximates the inverse by a sparse factorisation instead.)

    Memory: 8 bytes for each pair of items that some user has both of, 8 bytes a weight. Cost: O(sum of n_u² + I m³ / 3)
    for m neighbours, and reading m rows of X'X for each item. The same at any ``n_jobs``.

    Args:
        reg: the ridge, as in :class:`EASE`, though less of it is best: the support regularises as well.
        neighbours: items a regression may use, m.
        n_jobs: threads; None and -1 mean all cores.

    Attributes:
        item_weights_: (I, I) CSR with at most ``neighbours`` entries a column.

    Example:
        >>> model = SparseEASE(reg=1.0, neighbours=2).fit(sp.csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
        >>> int(model.scores(model.fold_in(sp.csr_array([[1, 0, 0, 0]]))).argmax())
        1
    """

    kind = "sparse-ease"
    search_space: ClassVar[dict[str, Any]] = {
        "reg": {"low": 1.0, "high": 10000.0, "log": True},
        "neighbours": [50, 100, 200, 400],
    }

    def __init__(self, reg: float = 100.0, neighbours: int = 200, *, n_jobs: int | None = None) -> None:
        self.reg = reg
        self.neighbours = neighbours
        self.n_jobs = n_jobs

    def _fit(self, interactions: Interactions) -> None:
        check_number(self, "reg")
        check_whole(self, "neighbours")
        X = interactions.matrix
        gram = sp.csr_array(X.T @ X, dtype=np.float32)
        gram.sort_indices()
        support = self._supports(gram)
        weights = np.zeros(support.nnz, dtype=np.float32)
        task = (ROUTINES, gram.indptr, gram.indices, gram.data, support.indptr, support.indices, np.float32(self.reg))
        failed: list[int] = []

        def work(start: int, stop: int) -> None:
            failed.append(solve_supports(start, stop, *task, weights))

        for_ranges(work, gram.shape[0], step=64, n_jobs=self.n_jobs)
        if max(failed) >= 0:
            item = interactions.item_ids[max(failed)]
            raise DataError(f"The regression of item {item!r} cannot be solved with reg {self.reg}; raise reg.")
        self.item_weights_ = sp.csr_array(
            sp.csr_array((weights, support.indices, support.indptr), shape=support.shape).T
        )

    def _supports(self, gram: sp.csr_array) -> sp.csr_array:
        """Each item's nearest other items by cosine, as the pattern of a CSR with ascending columns."""
        norms = np.sqrt(np.maximum(gram.diagonal(), 1e-12))
        blocks = []
        for first in range(0, gram.shape[0], _BLOCK):
            block = gram[first : first + _BLOCK]
            rows = np.repeat(np.arange(first, first + block.shape[0]), np.diff(block.indptr))
            cosine = np.abs(block.data) / (norms[rows] * norms[block.indices])
            cosine[rows == block.indices] = 0
            near = sp.csr_array((cosine, block.indices, block.indptr), shape=block.shape)
            blocks.append(strongest(near, self.neighbours))
        return sp.csr_array(sp.vstack(blocks))

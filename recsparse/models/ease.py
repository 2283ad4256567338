"""EASE: a dense item-item regression in closed form."""

from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import spotrf, spotri

from recsparse.errors import DataError
from recsparse.interactions.interactions import Interactions
from recsparse.kernels.item_item import TILE, gram_lower, weights_from_inverse
from recsparse.models.item_item import ItemItem
from recsparse.models.settings import check_number
from recsparse.parallel import for_ranges


class EASE(ItemItem):
    """Embarrassingly shallow auto-encoder: ``min_B ||X - X B||^2 + reg ||B||^2`` with ``diag(B) = 0``.

    With ``P = (X'X + reg I)^-1`` the answer is ``B[j, i] = -P[j, i] / P[i, i]`` (Steck, "Embarrassingly Shallow
    Autoencoders for Sparse Data", WWW 2019, eq. 8). All of it happens in one (I, I) float32 array, which is the memory
    it takes: 4 I^2 bytes. On ML-1M the weights differ from a float64 inverse's by at most 2e-6 at reg 1000 and 2e-4
    at reg 0.1. Cost: O(sum of n_u^2 + I^3). For a catalogue too large for it see :class:`SparseEASE`.

    Args:
        reg: the ridge on the weights, in interactions; more of it shrinks rare items more. Larger data, larger reg:
            200 to 1,000 are usual.
        n_jobs: threads; None and -1 mean all cores.

    Example:
        >>> model = EASE(reg=1.0).fit(sp.csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
        >>> int(model.scores(model.fold_in(sp.csr_array([[1, 0, 0, 0]]))).argmax())
        1
    """

    kind = "ease"
    search_space: ClassVar[dict[str, Any]] = {"reg": {"low": 10.0, "high": 10000.0, "log": True}}

    def __init__(self, reg: float = 500.0, n_jobs: int | None = None) -> None:
        self.reg = reg
        self.n_jobs = n_jobs

    def _fit(self, interactions: Interactions) -> None:
        check_number(self, "reg")
        weights = gram(interactions.matrix, self.n_jobs)
        weights[np.diag_indices(len(weights))] += np.float32(self.reg)
        # LAPACK's columns are our rows: its upper triangle is our lower one, and nothing is copied.
        _, failed = spotrf(weights.T, lower=0, overwrite_a=1, clean=0)
        if not failed:
            _, failed = spotri(weights.T, lower=0, overwrite_c=1)
        diagonal = weights.diagonal().copy()
        if failed or not (diagonal > 0).all():
            raise DataError(f"X'X + {self.reg} I cannot be inverted in float32; raise reg.")
        for_ranges(
            lambda start, stop: weights_from_inverse(start, stop, diagonal, weights),
            -(-len(weights) // TILE), step=4, n_jobs=self.n_jobs,
        )  # fmt: skip
        self.item_weights_ = weights


def gram(matrix: sp.csr_array, n_jobs: int | None = None) -> np.ndarray:
    """The lower triangle of ``X'X``, (I, I) float32; zeros above the diagonal."""
    by_item = sp.csc_array(matrix)
    out = np.zeros((matrix.shape[1], matrix.shape[1]), dtype=np.float32)
    parts = (matrix.indptr, matrix.indices, matrix.data, by_item.indptr, by_item.indices, by_item.data, out)
    for_ranges(lambda start, stop: gram_lower(start, stop, *parts), len(out), step=64, n_jobs=n_jobs)
    return out

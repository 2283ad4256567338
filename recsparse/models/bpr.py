"""The BPR loss of MF's training pairs as criteria and allocations ask for it: over all pairs, not by steps."""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.kernels.bpr import pull_pairs
from recsparse.kernels.sgd import Side
from recsparse.models.side import shape_of

Floats = npt.NDArray[np.float32]

_SAMPLED = 32_768
_BLOCK = 8192
"""Pairs whose rows are looked up together."""


def bpr_gradient(
    matrix: sp.csr_array, users: Side, items: Side, table: int, seed: int, epoch: int, start: int, stop: int
) -> Floats:
    """The derivative of the BPR loss by rows ``start`` to ``stop`` of the users (``table`` 0) or of the items (1).

    It is taken over all known pairs, with one uniform negative each; of items, the whole matrix is gone through.
    """
    drawn = np.uint64(np.random.default_rng([seed, epoch, 1]).integers(0, 2**63))
    dim = shape_of(users)[1]
    gradient = np.zeros((stop - start, dim), dtype=np.float32)
    pull_pairs(
        matrix.indptr, matrix.indices, users, items, matrix.shape[1], dim, table == 1, drawn, start, stop, gradient
    )
    return gradient


def bpr_loss(matrix: sp.csr_array, users: Floats, items: Floats, seed: int, epoch: int) -> float:
    """The BPR loss of 32,768 known pairs drawn at random."""
    rng = np.random.default_rng([seed, epoch, 2])
    sampled = np.sort(rng.integers(0, matrix.nnz, _SAMPLED))
    rows = np.searchsorted(matrix.indptr, sampled, side="right") - 1
    others = rng.integers(0, matrix.shape[1], len(sampled))
    gaps = _gaps(users, items, rows, matrix.indices[sampled], others)
    return float(np.logaddexp(0.0, -gaps.astype(np.float64)).sum())


def _gaps(
    users: Floats, items: Floats, rows: npt.NDArray[np.int64], liked: npt.NDArray[np.int32],
    others: npt.NDArray[np.int64],
) -> Floats:  # fmt: skip
    """How much better each pair scores than its negative."""
    gaps = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        gaps[part] = np.einsum("nd,nd->n", users[rows[part]], items[liked[part]] - items[others[part]])
    return gaps

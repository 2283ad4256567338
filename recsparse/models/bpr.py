"""The BPR loss of MF's training pairs as criteria and allocations ask for it: by whole tables, not by steps."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Floats = npt.NDArray[np.float32]

_SAMPLED = 32_768
_BLOCK = 8192
"""Pairs whose rows are looked up together."""


def bpr_gradient(matrix: sp.csr_array, users: Floats, items: Floats, seed: int, epoch: int) -> Floats:
    """The derivative of the BPR loss by the item table, (I, D), over all known pairs with one uniform negative each."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    others = np.random.default_rng([seed, epoch, 1]).integers(0, matrix.shape[1], matrix.nnz)
    weights = (1 / (1 + np.exp(_gaps(users, items, rows, matrix.indices, others)))).astype(np.float32)
    pulls = sp.csr_array((weights, (matrix.indices, rows)), shape=matrix.shape[::-1])
    pushes = sp.csr_array((weights, (others, rows)), shape=matrix.shape[::-1])
    gradient: Floats = np.asarray((pushes - pulls) @ users, dtype=np.float32)
    return gradient


def bpr_loss(
    matrix: sp.csr_array, users: Floats, items: Floats, seed: int, epoch: int
) -> Callable[[npt.NDArray[np.int64], npt.NDArray[np.bool_]], float]:
    """Gives the BPR loss when these items keep only these entries (R', D), over 32,768 known pairs drawn at random."""
    rng = np.random.default_rng([seed, epoch, 2])
    sampled = rng.integers(0, matrix.nnz, _SAMPLED)
    rows = np.searchsorted(matrix.indptr, sampled, side="right") - 1
    others = rng.integers(0, matrix.shape[1], len(sampled))

    def loss(pruned: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]) -> float:
        left = items.copy()
        left[pruned] *= kept
        gaps = _gaps(users, left, rows, matrix.indices[sampled], others)
        return float(np.logaddexp(0.0, -gaps.astype(np.float64)).sum())

    return loss


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

"""Bases in which few entries an item say much: the loss does not see rotations, but pruning does."""

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.models.least_squares import Dense
from recsparse.models.lightgcn import normalised
from recsparse.parallel import single_threaded_blas

Doubles = npt.NDArray[np.float64]

_STEPS = 5
"""Of power iteration."""

_TURNS = 30
"""Of varimax, over as many items as ``_TURNED`` at most, those of longest vectors."""

_TURNED = 1 << 14

_FLOOR = 1e-3
"""What singular values are held above, relative to the largest: a column that is zero would stay zero."""


def first_users(matrix: sp.csr_array, dim: int, rng: np.random.Generator) -> Dense:
    """Users (U, D) from the leading singular vectors of ``A = D_u^-½ X D_i^-½``, turned to where items are sparse.

    With ``A ≈ P diag(s) Qᵀ`` by power iteration from random vectors (Halko, Martinsson and Tropp 2011, algorithm 4.4),
    ``P diag(s)^½ R``, where R is the rotation that varimax finds for the items' ``Q diag(s)^½`` (Kaiser 1958). The loss
    does not see rotations, but which entries are large does. On average rows have length 1.

    Cost: O(nnz D + (U + I) D² + D³), a few dozen times. The same bytes at any number of threads.
    """
    known = normalised(matrix)
    by_item = sp.csr_array(known.T)
    rank = min(dim, known.shape[0])
    with single_threaded_blas():
        basis = rng.standard_normal((known.shape[0], rank), dtype=np.float32)
        for _ in range(_STEPS):
            basis = np.linalg.qr(known @ (by_item @ basis))[0]
        seen = by_item @ basis
        squares, turn = np.linalg.eigh((seen.T @ seen).astype(np.float64))
        weights = np.sqrt(np.maximum(np.sqrt(np.maximum(squares, 0)), _FLOOR * np.sqrt(squares[-1])))
        users = basis @ (turn * weights) @ varimax(seen @ (turn / weights), rng)
    users = np.concatenate([users, _FLOOR * rng.standard_normal((len(users), dim - rank))], axis=1)
    return np.asarray(users * np.sqrt(len(users)) / np.linalg.norm(users), dtype=np.float32)


def varimax(loadings: Doubles, rng: np.random.Generator) -> Doubles:
    """The rotation (D, D) of these (I, D) that makes their squares vary most within columns: few large, many small.

    From a random rotation, 30 steps of the fixed-point iteration on Kaiser's criterion (1958), over the 16,384 longest
    rows. Cost of a step: O(I D² + D³).
    """
    longest = np.argsort(-np.square(loadings).sum(axis=1), kind="stable")[:_TURNED]
    loadings = loadings[longest]
    rotation = np.linalg.qr(rng.standard_normal((loadings.shape[1],) * 2))[0]
    with single_threaded_blas():
        for _ in range(_TURNS):
            turned = loadings @ rotation
            left, _, right = np.linalg.svd(loadings.T @ (turned**3 - turned * np.square(turned).mean(axis=0)))
            rotation = left @ right
    return rotation

"""The derivative of the BPR loss by some rows of a table, pair after pair, so that nothing is held for each pair."""

import numba as nb
import numpy as np

from recsparse.kernels.lanes import LANES
from recsparse.kernels.negatives import below, mix
from recsparse.kernels.packed_sgd import read_row
from recsparse.kernels.sgd import exp


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def gap_of(user, liked, other):  # type: ignore[no-untyped-def]
    """How much better the first item scores than the second."""
    gap = np.float32(0)
    for d in range(len(user)):
        gap += user[d] * (liked[d] - other[d])
    return gap


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def pull_pairs(indptr, indices, users, items, n_items, dim, by_items, seed, start, stop, gradient):  # type: ignore[no-untyped-def]
    """Add to ``gradient`` the derivative by rows [start, stop) of the items, or of the users; negatives are uniform.

    Of ``-log σ(u·v_i - u·v_j)`` that is ``w u`` by v_j, ``-w u`` by v_i and ``w (v_j - v_i)`` by u, with
    ``w = σ(u·v_j - u·v_i)``. Sides may be packed; rows are read with their zeros. Pairs of other rows are passed over.
    """
    U, V = users.values.ravel(), items.values.ravel()
    rows = np.empty((3, dim + LANES), dtype=np.float32)
    own, liked, other = rows[0, :dim], rows[1, :dim], rows[2, :dim]
    first, last = (0, len(indptr) - 1) if by_items else (start, stop)
    for user in range(first, last):
        read_row(U, users.ptr, users.columns, users.bits, dim, user, rows[0])
        for entry in range(indptr[user], indptr[user + 1]):
            i, j = indices[entry], below(mix(seed + np.uint64(entry)), n_items)
            if by_items and not (start <= i < stop or start <= j < stop):
                continue
            read_row(V, items.ptr, items.columns, items.bits, dim, i, rows[1])
            read_row(V, items.ptr, items.columns, items.bits, dim, j, rows[2])
            weight = np.float32(1) / (np.float32(1) + exp(gap_of(own, liked, other)))
            if not by_items:
                for d in range(dim):
                    gradient[user - start, d] += weight * (other[d] - liked[d])
                continue
            if start <= i < stop:
                for d in range(dim):
                    gradient[i - start, d] -= weight * own[d]
            if start <= j < stop:
                for d in range(dim):
                    gradient[j - start, d] += weight * own[d]

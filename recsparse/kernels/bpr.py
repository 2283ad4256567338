"""The derivative of the BPR loss by whole tables, pair after pair, so that nothing is held for each pair."""

import numba as nb
import numpy as np

from recsparse.kernels.negatives import below, mix
from recsparse.kernels.sgd import exp


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def pull_pairs(indptr, indices, users, items, by_items, seed, gradient):  # type: ignore[no-untyped-def]
    """Add to ``gradient`` the derivative by the items' entries, or the users', of each pair with one uniform negative.

    Of ``-log σ(u·v_i - u·v_j)`` that is ``w u`` by v_j, ``-w u`` by v_i and ``w (v_j - v_i)`` by u, with
    ``w = σ(u·v_j - u·v_i)``.
    """
    dim = users.shape[1]
    for user in range(len(indptr) - 1):
        for entry in range(indptr[user], indptr[user + 1]):
            liked = indices[entry]
            other = below(mix(seed + np.uint64(entry)), len(items))
            gap = np.float32(0)
            for d in range(dim):
                gap += users[user, d] * (items[liked, d] - items[other, d])
            weight = np.float32(1) / (np.float32(1) + exp(gap))
            if by_items:
                for d in range(dim):
                    gradient[liked, d] -= weight * users[user, d]
                for d in range(dim):
                    gradient[other, d] += weight * users[user, d]
            else:
                for d in range(dim):
                    gradient[user, d] += weight * (items[other, d] - items[liked, d])

"""The derivative of the BPR loss by some rows of a table, user after user, so that nothing is held for each pair."""

import numba as nb
import numpy as np

from recsparse.kernels.lanes import LANES
from recsparse.kernels.negatives import below, mix
from recsparse.kernels.packed_sgd import read_row, score_rows
from recsparse.kernels.sgd import exp


@nb.njit(nogil=True, cache=True)
def draw_pairs(first, stop, indices, seed, n_items, every, low, high, rows):  # type: ignore[no-untyped-def]
    """Write the items of known pairs [first, stop), each followed by a uniform negative; give how many these are.

    Unless it is ``every`` pair, those of which neither is in [low, high) are left out.
    """
    n = 0
    for entry in range(first, stop):
        liked, other = np.int64(indices[entry]), below(mix(seed + np.uint64(entry)), n_items)
        rows[n], rows[n + 1] = liked, other
        n += 2 * (every or low <= liked < high or low <= other < high)
    return n


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def score_gaps(user, values, ptr, columns, bits, dim, rows, n, scores):  # type: ignore[no-untyped-def]
    """Write how much better each of the pairs ``rows[:n]`` scores than its negative to every other place."""
    if len(ptr):
        score_rows(user, values, ptr, columns, bits, dim, rows, 0, n, scores)
        for at in range(0, n, 2):
            scores[at] -= scores[at + 1]
        return
    for at in range(0, n, 2):
        liked, other = rows[at] * dim, rows[at + 1] * dim
        gap = np.float32(0)
        for d in range(dim):
            gap += user[d] * (values[np.uint64(liked + d)] - values[np.uint64(other + d)])
        scores[at] = gap


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def pull_items(user, values, ptr, columns, dim, own, rows, weights, n, low, high, out):  # type: ignore[no-untyped-def]
    """Add to the items' rows [low, high), flat in ``out``, what one user's pairs pull them by."""
    for place in range(n):
        row = rows[place]
        if not low <= row < high:
            continue
        weight = weights[place // 2 * 2] if place % 2 else -weights[place]
        to = (row - low) * dim
        if len(columns):
            for at in range(ptr[user], ptr[user + 1]):
                out[np.uint64(to + columns[np.uint64(at)])] += weight * values[np.uint64(at)]
        else:
            for d in range(dim):
                out[np.uint64(to + d)] += weight * own[d]


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def pull_user(values, ptr, columns, bits, dim, rows, weights, n, liked, other, out, to):  # type: ignore[no-untyped-def]
    """Add to a user's row, from ``out[to]`` on, what the pairs pull it by."""
    for place in range(0, n, 2):
        weight = weights[place]
        if len(columns):
            for sign, row in ((-weight, rows[place]), (weight, rows[place + 1])):
                for at in range(ptr[row], ptr[row + 1]):
                    out[np.uint64(to + columns[np.uint64(at)])] += sign * values[np.uint64(at)]
        else:
            read_row(values, ptr, columns, bits, dim, rows[place], liked)
            read_row(values, ptr, columns, bits, dim, rows[place + 1], other)
            for d in range(dim):
                out[np.uint64(to + d)] += weight * (other[d] - liked[d])


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def pull_pairs(indptr, indices, users, items, n_items, dim, by_items, seed, start, stop, gradient):  # type: ignore[no-untyped-def]
    """Add to ``gradient`` the derivative by rows [start, stop) of the items, or of the users; negatives are uniform.

    Of ``-log σ(u·v_i - u·v_j)`` that is ``w u`` by v_j, ``-w u`` by v_i and ``w (v_j - v_i)`` by u, with
    ``w = σ(u·v_j - u·v_i)``. Sides may be packed.
    """
    U, V, out = users.values.ravel(), items.values.ravel(), gradient.ravel()
    room = np.zeros((3, dim + LANES), dtype=np.float32)
    own, liked, other = room[0], room[1], room[2]
    most = 2 * (np.max(np.diff(indptr)) + 1)
    rows, weights = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.float32)
    first, last = (0, len(indptr) - 1) if by_items else (start, stop)
    for user in range(first, last):
        n = draw_pairs(indptr[user], indptr[user + 1], indices, seed, n_items, not by_items, start, stop, rows)
        if n == 0:
            continue
        read_row(U, users.ptr, users.columns, users.bits, dim, user, own)
        score_gaps(own, V, items.ptr, items.columns, items.bits, dim, rows, n, weights)
        for at in range(0, n, 2):
            weights[at] = np.float32(1) / (np.float32(1) + exp(weights[at]))
        if by_items:
            pull_items(user, U, users.ptr, users.columns, dim, own, rows, weights, n, start, stop, out)
        else:
            pull_user(V, items.ptr, items.columns, items.bits, dim, rows, weights, n, liked, other, out,
                      (user - start) * dim)  # fmt: skip

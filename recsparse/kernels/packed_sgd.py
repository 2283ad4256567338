"""Stochastic gradient steps on packed tables: what :func:`recsparse.kernels.sgd.step_groups` does, on what lives.

Where more than a 16th of a table lives, a bitmap says where: going over all columns is quicker than looking each live
one up. The rows of a group are stepped in one call, without a slice, for calls and slices count references, which takes
longer than a short row.
"""

import numba as nb
import numpy as np

from recsparse.kernels.lanes import LANES
from recsparse.kernels.packed_lanes import (
    dot_packed,
    gather_lanes,
    squeeze,
    squeeze_and_add,
    step_adagrad,
    step_adam,
    step_sgd,
    unpack,
)
from recsparse.kernels.sgd import ADAGRAD, SGD, corrections, normalise, weigh


@nb.njit(nogil=True, cache=True, inline="always")
def span(row, ptr, dim):  # type: ignore[no-untyped-def]
    """Where a row's entries start, and how many there are, of a packed table or of a whole one."""
    if len(ptr):
        start = ptr[np.uint64(row)]
        return start, ptr[np.uint64(row + 1)] - start
    return row * dim, np.int64(dim)


@nb.njit(nogil=True, cache=True, inline="always")
def column_of(columns, at, k):  # type: ignore[no-untyped-def]
    """The column of a row's ``k``-th entry, which stands at ``at``; of a whole row where there are no columns."""
    return np.uint64(columns[at]) if len(columns) else np.uint64(k)


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def read_row(values, ptr, columns, bits, dim, row, vector):  # type: ignore[no-untyped-def]
    """Write a row with its zeros; ``vector`` has room up to the next sixteen."""
    start, n = span(row, ptr, dim)
    if len(bits):
        unpack(values, start, bits, row * dim, dim, vector)
        return
    for d in range(dim):
        vector[d] = 0
    for k in range(n):
        at = np.uint64(start + k)
        vector[column_of(columns, at, k)] = values[at]


@nb.njit(nogil=True, cache=True)
def read_rows(values, ptr, columns, bits, dim, first, out):  # type: ignore[no-untyped-def]
    """Write the rows from ``first`` on with their zeros to ``out`` (n, D)."""
    vector = np.empty(dim + LANES, dtype=np.float32)
    for row in range(len(out)):
        read_row(values, ptr, columns, bits, dim, first + row, vector)
        for d in range(dim):
            out[row, d] = vector[d]


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def score_rows(vector, values, ptr, columns, bits, dim, rows, begin, end, scores):  # type: ignore[no-untyped-def]
    """Write the products of a user's vector and the table's rows ``rows[begin:end]``."""
    for place in range(begin, end):
        row = rows[place]
        start, n = span(row, ptr, dim)
        if len(bits):
            scores[place - begin] = dot_packed(vector, values, start, bits, row * dim, dim)
        else:
            score = np.float32(0)
            for k in range(n):
                at = np.uint64(start + k)
                score += vector[column_of(columns, at, k)] * values[at]
            scores[place - begin] = score


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def step_rows(  # type: ignore[no-untyped-def]
    values, first, second, steps, prior, ptr, columns, bits, dim, optimiser, rate, unit, rows, begin, end, weights, reg,
    vector, pull, aim, aims, gather,
):  # fmt: skip
    """Step the entries of ``rows[begin:end]`` along weight times ``vector``, less their decay.

    With ``gather`` the weight times what they were is added to ``pull``. ``aim`` and ``aims`` have room for a row and
    15 entries.
    """
    scale = scale2 = np.float32(1)
    for place in range(begin, end):
        row, weight = rows[place], weights[place - begin]
        start, n = span(row, ptr, dim)
        if len(steps):
            steps[row] += 1
            scale, scale2 = corrections(steps[row])
        target = vector
        strength = weight
        if len(prior):
            for d in range(dim):
                aim[d] = weight * vector[d] + reg * prior[row, d]
            target, strength = aim, np.float32(1)
        if len(bits):
            if gather:
                squeeze_and_add(target, values, start, bits, row * dim, dim, weight, pull, aims)
            else:
                squeeze(target, values, start, bits, row * dim, dim, weight, pull, aims)
        else:
            if len(columns):
                for k in range(0, n, LANES):
                    gather_lanes(target, columns, start + k, n - k, aims, k)
            else:
                for d in range(dim):
                    aims[d] = target[d]
            if gather:
                for k in range(n):
                    at = np.uint64(start + k)
                    pull[column_of(columns, at, k)] += weight * values[at]
        for k in range(0, n, LANES):
            at, left = start + k, n - k
            if optimiser == SGD:
                step_sgd(values, first, second, at, left, aims, k, strength, reg, rate, scale, scale2)
            elif optimiser == ADAGRAD:
                step_adagrad(values, first, second, at, left, aims, k, strength, reg, rate, scale, scale2)
            else:
                step_adam(values, first, second, at, left, aims, k, strength, reg, rate, scale, scale2)
        if unit:
            normalise(values, np.uint64(start), n)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def step_packed_groups(  # type: ignore[no-untyped-def]
    start, stop, group_users, rows, ends, users, items, settings, log_share, scores, pull, vector, aim, aims
):
    """Take the steps of groups [start, stop) where at least one of the tables is packed.

    ``pull``, of zeros, ``vector``, ``aim`` and ``aims`` have room for a row and 15 entries.
    """
    U, U1, U2, u_steps, u_prior, u_ptr, u_columns, u_bits, u_dim = users
    V, V1, V2, v_steps, v_prior, v_ptr, v_columns, v_bits, v_dim = items
    dim = max(u_dim, v_dim)
    U, U1, U2, V, V1, V2 = U.ravel(), U1.ravel(), U2.ravel(), V.ravel(), V1.ravel(), V2.ravel()
    loss, optimiser, rate, reg, negatives, negative_weight, sharpness, unit = settings
    begin = 0
    for group in range(start, stop):
        end = ends[group - start]
        n = end - begin
        read_row(U, u_ptr, u_columns, u_bits, dim, group_users[group], vector)
        score_rows(vector, V, v_ptr, v_columns, v_bits, dim, rows, begin, end, scores)
        weigh(loss, rows, begin, scores, n, negatives + 1, negative_weight, log_share, sharpness)
        step_rows(V, V1, V2, v_steps, v_prior, v_ptr, v_columns, v_bits, dim, optimiser, rate, unit, rows, begin, end,
                  scores, reg, vector, pull, aim, aims, True)  # fmt: skip
        scores[0] = 1
        strength = reg * np.float32(n // (negatives + 1))
        step_rows(U, U1, U2, u_steps, u_prior, u_ptr, u_columns, u_bits, dim, optimiser, rate, unit, group_users, group,
                  group + 1, scores, strength, pull, pull, aim, aims, False)  # fmt: skip
        for d in range(dim):
            pull[d] = 0
        begin = end

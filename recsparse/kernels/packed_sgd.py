"""Stochastic gradient steps on packed tables: what :func:`recsparse.kernels.sgd.step_groups` does, on what lives.

A row is short: the rows of a group are stepped in one call, without a slice, for calls and slices count references,
which takes longer than such a row.
"""

import numba as nb
import numpy as np

from recsparse.kernels.lanes import LANES
from recsparse.kernels.packed_lanes import slope_lanes, step_adagrad, step_adam, step_sgd
from recsparse.kernels.sgd import ADAGRAD, SGD, corrections, normalise, weigh


@nb.njit(nogil=True, cache=True, inline="always")
def span(row, ptr, dim):  # type: ignore[no-untyped-def]
    """Where a row's entries start, and how many there are, of a packed table or of a whole one."""
    if len(ptr):
        return np.uint64(ptr[row]), ptr[row + 1] - ptr[row]
    return np.uint64(row * dim), np.int64(dim)


@nb.njit(nogil=True, cache=True, inline="always")
def column_of(columns, at, k):  # type: ignore[no-untyped-def]
    """The column of a row's ``k``-th entry, which stands at ``at``."""
    return np.uint64(columns[at]) if len(columns) else np.uint64(k)


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def unpack(values, columns, start, n, vector):  # type: ignore[no-untyped-def]
    """Write a row with its zeros."""
    for d in range(len(vector)):
        vector[d] = 0
    for k in range(n):
        at = start + np.uint64(k)
        vector[column_of(columns, at, k)] = values[at]


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def score_rows(vector, values, ptr, columns, rows, begin, end, scores):  # type: ignore[no-untyped-def]
    """Write the products of a user's vector and the table's rows ``rows[begin:end]``."""
    for place in range(begin, end):
        start, n = span(rows[place], ptr, len(vector))
        score = np.float32(0)
        for k in range(n):
            at = start + np.uint64(k)
            score += vector[column_of(columns, at, k)] * values[at]
        scores[place - begin] = score


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def step_rows(  # type: ignore[no-untyped-def]
    values, first, second, steps, prior, ptr, columns, optimiser, rate, unit, rows, begin, end, weights, reg, vector,
    pull, slope, gather,
):  # fmt: skip
    """Step the entries of ``rows[begin:end]`` along weight times ``vector``, less their decay.

    With ``gather`` the weight times what they were is added to ``pull``; ``slope`` has room for a row and 15 entries.
    """
    scale = scale2 = np.float32(1)
    for place in range(begin, end):
        row, weight = rows[place], weights[place - begin]
        start, n = span(row, ptr, len(vector))
        if len(steps):
            steps[row] += 1
            scale, scale2 = corrections(steps[row])
        if len(columns):
            for k in range(0, n, LANES):
                slope_lanes(vector, columns, values, np.int64(start) + k, n - k, weight, reg, slope, k)
        else:
            for k in range(n):
                slope[k] = weight * vector[k] - reg * values[start + np.uint64(k)]
        if len(prior):
            for k in range(n):
                slope[k] += reg * prior[row, column_of(columns, start + np.uint64(k), k)]
        if gather:
            for k in range(n):
                at = start + np.uint64(k)
                pull[column_of(columns, at, k)] += weight * values[at]
        for k in range(0, n, LANES):
            at = np.int64(start) + k
            if optimiser == SGD:
                step_sgd(values, first, second, at, n - k, slope, k, rate, scale, scale2)
            elif optimiser == ADAGRAD:
                step_adagrad(values, first, second, at, n - k, slope, k, rate, scale, scale2)
            else:
                step_adam(values, first, second, at, n - k, slope, k, rate, scale, scale2)
        if unit:
            normalise(values, start, n)


@nb.njit(nogil=True, cache=True, error_model="numpy")
def step_packed_groups(  # type: ignore[no-untyped-def]
    start, stop, group_users, rows, ends, users, items, settings, log_share, scores, pull, vector, slope
):
    """Take the steps of groups [start, stop) where at least one of the tables is packed."""
    U, U1, U2, u_steps, u_prior, u_ptr, u_columns, _ = users
    V, V1, V2, v_steps, v_prior, v_ptr, v_columns, _ = items
    U, U1, U2, V, V1, V2 = U.ravel(), U1.ravel(), U2.ravel(), V.ravel(), V1.ravel(), V2.ravel()
    loss, optimiser, rate, reg, negatives, negative_weight, sharpness, unit = settings
    begin = 0
    for group in range(start, stop):
        end = ends[group - start]
        n = end - begin
        first, many = span(group_users[group], u_ptr, len(pull))
        unpack(U, u_columns, first, many, vector)
        score_rows(vector, V, v_ptr, v_columns, rows, begin, end, scores)
        weigh(loss, rows, begin, scores, n, negatives + 1, negative_weight, log_share, sharpness)
        step_rows(V, V1, V2, v_steps, v_prior, v_ptr, v_columns, optimiser, rate, unit, rows, begin, end, scores,
                  reg, vector, pull, slope, True)  # fmt: skip
        scores[0] = 1
        strength = reg * np.float32(n // (negatives + 1))
        step_rows(U, U1, U2, u_steps, u_prior, u_ptr, u_columns, optimiser, rate, unit, group_users, group, group + 1,
                  scores, strength, pull, pull, slope, False)  # fmt: skip
        for d in range(len(pull)):
            pull[d] = 0
        begin = end

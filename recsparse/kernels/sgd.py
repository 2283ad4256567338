"""Stochastic gradient steps of matrix factorisation: score a group's items, weigh them by the loss, step their rows.

A *group* is up to ``GROUP`` known items of one user. Its gradients are taken at the same user vector, so that scores do
not wait for each other and the vector stays in cache; item rows step one after the other, the user's once, at the end.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from recsparse.kernels.negatives import below, mix
from recsparse.kernels.strips import score_rows, step_rows
from recsparse.kernels.vector import float_of

GROUP = 16
"""Known items of one user that step together."""

BLOCK = 8
"""Groups drawn at a time: their item rows fit the first cache."""

BATCH = 256
"""Groups whose positives are each other's in-batch negatives; a multiple of BLOCK."""

BPR, SOFTMAX, SQUARED = 0, 1, 2
SGD, ADAGRAD, ADAM = 0, 1, 2

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Adam's usual constants (Kingma and Ba 2015)."""

Floats = npt.NDArray[np.float32]


class Epoch(NamedTuple):
    """One epoch's samples in the order of their steps: every known pair once, its negatives drawn as it goes.

    Attributes:
        users: (G,) int64, the user of each group.
        ptr: (G + 1,) int64, where each group's positives start.
        positives: (nnz,) int32.
        pool: int32, where negatives are drawn from.
        in_batch: draw from the positives of the ``BATCH`` groups around (aligned) instead of from ``pool``.
        seed: uint64, other in every epoch.
    """

    users: npt.NDArray[np.int64]
    ptr: npt.NDArray[np.int64]
    positives: npt.NDArray[np.int32]
    pool: npt.NDArray[np.int32]
    in_batch: bool
    seed: np.uint64


class Settings(NamedTuple):
    """What is minimised and how; the numbers are float32 so that the loops stay in single precision.

    Losses see scores times ``sharpness``, one over a temperature; with ``unit`` rows are kept at length 1.
    """

    loss: int
    optimiser: int
    rate: np.float32
    reg: np.float32
    negatives: int
    negative_weight: np.float32
    sharpness: np.float32 = np.float32(1)
    unit: bool = False


class Side(NamedTuple):
    """One table in training, whole or packed: of a packed one only the entries that live are there, row after row.

    Attributes:
        values: (R, D) float32; (1, N) where N entries live.
        first: as ``values``, Adagrad's sums of squares or Adam's means; without rows for SGD.
        second: as ``values``, Adam's means of squares; without rows otherwise.
        steps: (R,) int64, steps a row has had, for Adam; (0,) otherwise.
        prior: (R, D) float32, what rows decay towards; without rows where that is zero.
        ptr: (R + 1,) int64, where a packed table's rows start; (0,) for a whole one.
        columns: (N,) uint16, the column of each packed entry; or instead
        bits: a bit buffer (:mod:`recsparse.kernels.bits`) with a bit an entry of the whole table, row after row. Both
            are (0,) for a whole table.
        dim: D of a packed table; 0 for a whole one.
    """

    values: Floats
    first: Floats
    second: Floats
    steps: npt.NDArray[np.int64]
    prior: Floats = np.zeros((0, 0), dtype=np.float32)
    ptr: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    columns: npt.NDArray[np.uint16] = np.zeros(0, dtype=np.uint16)
    bits: npt.NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
    dim: int = 0


@nb.njit(nogil=True, cache=True)
def arrange(start, stop, order, start_of, ptr, items, positives):  # type: ignore[no-untyped-def]
    """Lay an epoch out: copy the positives of groups [start, stop) of the order, which begin at ``start_of``."""
    for position in range(start, stop):
        first = start_of[order[position]]
        for at in range(ptr[position], ptr[position + 1]):
            positives[at] = items[first + at - ptr[position]]


@nb.njit(nogil=True, cache=True)
def shuffle_within(start, stop, ptr, items, seed):  # type: ignore[no-untyped-def]
    """Shuffle the items of users [start, stop) in place, each user's own (Fisher and Yates)."""
    for user in range(start, stop):
        first = ptr[user]
        for entry in range(ptr[user + 1] - 1, first, -1):
            other = first + below(mix(seed + np.uint64(entry)), entry - first + 1)
            items[entry], items[other] = items[other], items[entry]


@nb.njit(nogil=True, cache=True, inline="always", fastmath=True)
def exp(x):  # type: ignore[no-untyped-def]
    """e^x in float32 within 4e-6 relative, x clipped to +-60; unlike libm's it vectorises."""
    power = min(max(x, np.float32(-60)), np.float32(60)) * np.float32(1.4426950408889634)
    whole = np.floor(power + np.float32(0.5))
    rest = power - whole
    value = np.float32(1.3333558e-3)
    value = value * rest + np.float32(9.6181291e-3)
    value = value * rest + np.float32(5.5504109e-2)
    value = value * rest + np.float32(2.4022651e-1)
    value = value * rest + np.float32(6.9314718e-1)
    value = value * rest + np.float32(1)
    return value * float_of((np.int32(whole) + np.int32(127)) << np.int32(23))


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def weigh_bpr(scores, n, run):  # type: ignore[no-untyped-def]
    """Replace scores by minus the derivative of the sum over negatives of -log sigmoid(positive - negative).

    Here and below, samples are runs of a positive's score and its negatives'.
    """
    for sample in range(n // run):
        first = sample * run
        pulls = np.float32(0)
        for at in range(first + 1, first + run):
            pull = np.float32(1) / (np.float32(1) + exp(scores[first] - scores[at]))
            scores[at] = -pull
            pulls += pull
        scores[first] = pulls


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def weigh_softmax(rows, begin, scores, n, run, log_share):  # type: ignore[no-untyped-def]
    """Replace scores by minus the derivative of -log softmax(score - log_share) at the positive."""
    for sample in range(n // run):
        first = sample * run
        highest = np.float32(-1e30)
        for at in range(first, first + run):
            scores[at] -= log_share[rows[begin + at]]
            highest = max(highest, scores[at])
        mass = np.float32(0)
        for at in range(first, first + run):
            scores[at] = exp(scores[at] - highest)
            mass += scores[at]
        for at in range(first, first + run):
            scores[at] = -scores[at] / mass
        scores[first] += np.float32(1)


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def weigh_squared(scores, n, run, negative_weight):  # type: ignore[no-untyped-def]
    """Replace scores by minus the derivative of (1 - positive)^2 / 2 + weight negative^2 / 2."""
    for sample in range(n // run):
        first = sample * run
        scores[first] = np.float32(1) - scores[first]
        for at in range(first + 1, first + run):
            scores[at] *= -negative_weight


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def weigh(loss, rows, begin, scores, n, run, negative_weight, log_share, sharpness):  # type: ignore[no-untyped-def]
    """Replace a vector's products with ``n`` rows by what pulls each of them along it: minus the loss's derivative.

    The rows' numbers are ``rows[begin:begin + n]``.
    """
    for at in range(n):
        scores[at] *= sharpness
    if loss == SOFTMAX:
        weigh_softmax(rows, begin, scores, n, run, log_share)
    elif loss == SQUARED:
        weigh_squared(scores, n, run, negative_weight)
    else:
        weigh_bpr(scores, n, run)
    for at in range(n):
        scores[at] *= sharpness


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def pull_row(users, user, table, item, weight, reg, pull, slope):  # type: ignore[no-untyped-def]
    """Write the gradient of one item's row, decay included; ``pull`` gathers the user's."""
    for d in range(len(pull)):
        pull[d] += weight * table[item, d]
        slope[d] = weight * users[user, d] - reg * table[item, d]


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def decay(users, user, reg, pull):  # type: ignore[no-untyped-def]
    """Add the decay to the user's gradient."""
    for d in range(len(pull)):
        pull[d] -= reg * users[user, d]


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def pull_to(prior, row, reg, slope):  # type: ignore[no-untyped-def]
    """Let a row's decay lead to its prior instead of to zero."""
    for d in range(len(slope)):
        slope[d] += reg * prior[row, d]


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def step_sgd(values, row, slope, rate):  # type: ignore[no-untyped-def]
    """Move a row along ``slope``, minus the loss's gradient."""
    for d in range(len(slope)):
        values[row, d] += rate * slope[d]


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def step_adagrad(values, squares, row, slope, rate):  # type: ignore[no-untyped-def]
    """The same, each entry divided by the root of its summed squares (Duchi et al. 2011)."""
    for d in range(len(slope)):
        square = squares[row, d] + slope[d] * slope[d]
        squares[row, d] = square
        values[row, d] += rate * slope[d] / (np.sqrt(square) + np.float32(EPSILON))


@nb.njit(nogil=True, cache=True, inline="always")
def corrections(steps):  # type: ignore[no-untyped-def]
    """What Adam's means and squares, which begin at zero, are multiplied by after so many steps."""
    one, taken = np.float32(1), np.float32(steps)
    first = one / (one - exp(taken * np.float32(np.log(BETA1))))
    return first, one / (one - exp(taken * np.float32(np.log(BETA2))))


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def step_adam(values, means, squares, steps, row, slope, rate):  # type: ignore[no-untyped-def]
    """The same by Adam (Kingma and Ba 2015, algorithm 1), with the steps counted a row."""
    steps[row] += 1
    scale, scale2 = corrections(steps[row])
    for d in range(len(slope)):
        mean = np.float32(BETA1) * means[row, d] + np.float32(1 - BETA1) * slope[d]
        square = np.float32(BETA2) * squares[row, d] + np.float32(1 - BETA2) * slope[d] * slope[d]
        means[row, d] = mean
        squares[row, d] = square
        values[row, d] += rate * mean * scale / (np.sqrt(square * scale2) + np.float32(EPSILON))


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def normalise(flat, start, n):  # type: ignore[no-untyped-def]
    """Bring the ``n`` entries from ``start`` on to length 1; zeros stay."""
    square = np.float32(0)
    for k in range(n):
        square += flat[start + np.uint64(k)] * flat[start + np.uint64(k)]
    factor = np.float32(1) / np.sqrt(square) if square > 0 else np.float32(0)
    for k in range(n):
        flat[start + np.uint64(k)] *= factor


@nb.njit(nogil=True, cache=True, error_model="numpy")
def step_groups(start, stop, group_users, rows, ends, users, items, settings, log_share, scores, pull, slope):  # type: ignore[no-untyped-def]
    """Take the steps of groups [start, stop) on whole tables, for any loss, optimiser and prior.

    Items' rows and the user's step by the same lines twice: one function for both, which would take all of a side's
    arrays for each row, makes an epoch of Adagrad 1.5 times as long.
    """
    U, U1, U2, u_steps, u_prior, _, _, _, _ = users
    V, V1, V2, v_steps, v_prior, _, _, _, _ = items
    loss, optimiser, rate, reg, negatives, negative_weight, sharpness, unit = settings
    plain = optimiser == SGD and not unit and not len(v_prior)
    keep = np.float32(1) - rate * reg
    begin = 0
    for group in range(start, stop):
        user = group_users[group]
        end = ends[group - start]
        n = end - begin
        score_rows(V, rows, begin, end, U, user, scores)
        weigh(loss, rows, begin, scores, n, negatives + 1, negative_weight, log_share, sharpness)
        if plain:
            step_rows(V, rows, begin, end, scores, U, user, pull, keep, rate)
        else:
            for at in range(n):
                row = rows[begin + at]
                pull_row(U, user, V, row, scores[at], reg, pull, slope)
                if len(v_prior):
                    pull_to(v_prior, row, reg, slope)
                if optimiser == SGD:
                    step_sgd(V, row, slope, rate)
                elif optimiser == ADAGRAD:
                    step_adagrad(V, V1, row, slope, rate)
                else:
                    step_adam(V, V1, V2, v_steps, row, slope, rate)
                if unit:
                    normalise(V[row], np.uint64(0), len(slope))
        strength = reg * np.float32(n // (negatives + 1))
        if len(u_prior):
            pull_to(u_prior, user, strength, pull)
        decay(U, user, strength, pull)
        if optimiser == SGD:
            step_sgd(U, user, pull, rate)
        elif optimiser == ADAGRAD:
            step_adagrad(U, U1, user, pull, rate)
        else:
            step_adam(U, U1, U2, u_steps, user, pull, rate)
        if unit:
            normalise(U[user], np.uint64(0), len(pull))
        for d in range(len(pull)):
            pull[d] = 0
        begin = end

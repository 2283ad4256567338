"""A pass of iALS++ over each row: some columns solved exactly at a time, all others as they are."""

import numba as nb
import numpy as np

from recsparse.kernels.ials import TILE
from recsparse.kernels.lapack import add_gram, solve_positive


@nb.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "arcp", "nsz"})
def solve_blocks(  # type: ignore[no-untyped-def]
    routines, indptr, indices, weights, F, G, reg, pull, X, width, start, stop
):
    """Improve rows [start, stop) of ``X`` (R, D) in place, ``width`` columns after ``width`` columns.

    What a block changes is minus its inverse Hessian times its gradient; the loss is quadratic, so that is its minimum.
    Errors of a row's interactions are kept up to date rather than computed again. ``pull`` (R, D) is reg times the
    rows' priors, or has no rows where they are zero. A row without interactions becomes zero.
    """
    d = F.shape[1]
    longest = 0
    for row in range(start, stop):
        longest = max(longest, indptr[row + 1] - indptr[row])
    errors = np.empty(longest, dtype=np.float32)
    matrix = np.empty(width * width, dtype=np.float32)
    buffer = np.empty(TILE * width, dtype=np.float32)
    change = np.empty(width, dtype=np.float32)
    scalars = np.empty(1, dtype=np.float32)
    integers = np.empty(3, dtype=np.int32)
    for row in range(start, stop):
        x = X[row]
        begin, end = indptr[row], indptr[row + 1]
        if begin == end:
            x[:] = 0
            continue
        for position in range(begin, end):
            f = F[indices[position]]
            error = np.float32(1.0)
            for j in range(d):
                error -= f[j] * x[j]
            errors[position - begin] = error
        for first in range(0, d, width):
            k = min(width, d - first)
            A = matrix[: k * k].reshape(k, k)
            B = buffer[: TILE * k].reshape(TILE, k)
            step = change[:k]
            for i in range(k):
                for j in range(i, k):
                    A[i, j] = G[first + i, first + j]
                A[i, i] += reg[row]
                g = G[first + i]
                slope = reg[row] * x[first + i]
                for j in range(d):
                    slope += g[j] * x[j]
                step[i] = -slope
                if len(pull) > 0:
                    step[i] += pull[row, first + i]
            for tile in range(begin, end, TILE):
                n = min(TILE, end - tile)
                for r in range(n):
                    f = F[indices[tile + r], first : first + k]
                    w = weights[tile + r]
                    root = np.sqrt(w)
                    w *= errors[tile + r - begin]
                    for j in range(k):
                        B[r, j] = root * f[j]
                        step[j] += w * f[j]
                add_gram(routines, B, n, A, scalars, integers)
            if solve_positive(routines, A, step, integers) != 0:
                x[:] = np.nan
                break
            for j in range(k):
                x[first + j] += step[j]
            for position in range(begin, end):
                f = F[indices[position], first : first + k]
                moved = np.float32(0.0)
                for j in range(k):
                    moved += f[j] * step[j]
                errors[position - begin] -= moved

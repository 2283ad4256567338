"""The half-step of explicit matrix factorisation: a ridge regression for each row."""

import numba as nb
import numpy as np

from recsparse.kernels.lapack import add_gram, solve_positive


@nb.njit(nogil=True, cache=True)
def solve_ratings(start, stop, routines, ptr, columns, targets, features, reg, out):  # type: ignore[no-untyped-def]
    """Minimise Σ (targets - z·x)² + reg n ||x||² over x, for rows [start, stop) of a CSR with n entries a row.

    ``features`` (N, D) holds z by column. A row without entries becomes zero. Cost: O(n D² + D³) a row.
    """
    dim = features.shape[1]
    longest = 0
    for row in range(start, stop):
        longest = max(longest, ptr[row + 1] - ptr[row])
    gathered = np.empty((max(longest, 1), dim), dtype=np.float32)
    system = np.empty((dim, dim), dtype=np.float32)
    scalars = np.empty(1, dtype=np.float32)
    integers = np.empty(3, dtype=np.int32)
    for row in range(start, stop):
        begin = ptr[row]
        n = ptr[row + 1] - begin
        solution = out[row]
        solution[:] = 0
        if n == 0:
            continue
        for at in range(n):
            z = features[columns[begin + at]]
            target = targets[begin + at]
            for d in range(dim):
                gathered[at, d] = z[d]
                solution[d] += target * z[d]
        system[:] = 0
        add_gram(routines, gathered, n, system, scalars, integers)
        for d in range(dim):
            system[d, d] += reg * n
        solve_positive(routines, system, solution, integers)

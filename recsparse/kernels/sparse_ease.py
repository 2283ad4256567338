"""EASE restricted to each item's neighbours: small dense systems gathered from a sparse Gram matrix."""

import numba as nb
import numpy as np

from recsparse.kernels.lapack import solve_positive


@nb.njit(nogil=True, cache=True)
def solve_supports(  # type: ignore[no-untyped-def]
    start, stop, routines, ptr, items, values, support_ptr, support, reg, out
):
    """Solve (G_SS + reg I) b = G_St for targets t in [start, stop), S their ascending support; b goes to ``out``.

    Gives -1, or the first target whose system is not positive definite. Cost for S of m items whose rows of G have r
    entries: O(m r + m^3 / 3).
    """
    place = np.full(len(ptr) - 1, -1, dtype=np.int64)
    integers = np.empty(3, dtype=np.int32)
    for target in range(start, stop):
        begin, end = support_ptr[target], support_ptr[target + 1]
        size = end - begin
        if size == 0:
            continue
        for at in range(size):
            place[support[begin + at]] = at
        system = np.zeros((size, size), dtype=np.float32)
        right = np.zeros(size, dtype=np.float32)
        for at in range(size):
            item = support[begin + at]
            for entry in range(ptr[item], ptr[item + 1]):
                other = place[items[entry]]
                if other >= at:
                    system[at, other] = values[entry]
            system[at, at] += reg
        for entry in range(ptr[target], ptr[target + 1]):
            other = place[items[entry]]
            if other >= 0:
                right[other] = values[entry]
        if solve_positive(routines, system, right, integers) != 0:
            return target
        for at in range(size):
            out[begin + at] = right[at]
            place[support[begin + at]] = -1
    return -1

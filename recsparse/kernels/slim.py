"""Coordinate descent for SLIM, on the Gram matrix, a target item at a time."""

import numba as nb
import numpy as np


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def solve_columns(start, stop, gram, l1, l2, positive, tolerance, rounds, out, first):  # type: ignore[no-untyped-def]
    """Minimise ½ ||x_t - X b||² + ½ l2 ||b||² + l1 |b|₁ with b_t = 0 for targets t in [start, stop).

    ``gram`` is X'X, whole. Row t - ``first`` of ``out`` gets b. ``residual`` holds X'(x_t - X b), so a step costs O(I)
    where a weight changes and O(1) where it stays. After a round over all items only those with a weight are visited,
    until they stand still; then all are again, until nothing moves more than ``tolerance``.
    """
    n_items = len(gram)
    residual = np.empty(n_items, dtype=np.float32)
    active = np.empty(n_items, dtype=np.int64)
    for target in range(start, stop):
        weights = out[target - first]
        for item in range(n_items):
            weights[item] = 0
            residual[item] = gram[target, item]
        everything = True
        n_active = 0
        for _ in range(rounds):
            moved = np.float32(0)
            n = n_items if everything else n_active
            for at in range(n):
                item = at if everything else active[at]
                norm = gram[item, item]
                if item == target or norm == 0:
                    continue
                old = weights[item]
                reach = residual[item] + norm * old
                new = np.float32(0)
                if reach > l1:
                    new = (reach - l1) / (norm + l2)
                elif reach < -l1 and not positive:
                    new = (reach + l1) / (norm + l2)
                if new != old:
                    weights[item] = new
                    moved = max(moved, abs(new - old))
                    change = new - old
                    row = gram[item]
                    for other in range(n_items):
                        residual[other] -= change * row[other]
            if moved <= tolerance:
                if everything:
                    break
                everything = True
            elif everything:
                everything = False
                n_active = 0
                for item in range(n_items):
                    if weights[item] != 0:
                        active[n_active] = item
                        n_active += 1

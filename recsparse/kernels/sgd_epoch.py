"""An epoch's samples drawn and stepped, block by block, by the kernel that suits the tables and the loss."""

import numba as nb
import numpy as np

from recsparse.kernels.lanes import LANES
from recsparse.kernels.negatives import CANDIDATES, draw_rows
from recsparse.kernels.packed_sgd import step_packed_groups
from recsparse.kernels.sgd import BATCH, BLOCK, GROUP, step_groups


@nb.njit(nogil=True, cache=True, error_model="numpy")
def train_groups(start, stop, epoch, known, users, items, settings, log_share):  # type: ignore[no-untyped-def]
    """Draw and take the steps of groups [start, stop); give the number of samples trained on.

    The two halves are functions of their own because LLVM optimises each a third better than both together.
    """
    dim = users.dim if users.dim else users.values.shape[1]
    run = settings.negatives + 1
    rows = np.empty(BLOCK * GROUP * run, dtype=np.int64)
    drawn = np.empty(GROUP * settings.negatives + CANDIDATES, dtype=np.int32)
    ends = np.empty(BLOCK, dtype=np.int64)
    scores = np.empty(GROUP * run, dtype=np.float32)
    padded = np.zeros((4, dim + LANES), dtype=np.float32)
    pull, vector, aim, aims = padded[0], padded[1], padded[2], padded[3]
    whole, slope = pull[:dim], aim[:dim]
    pool = epoch.positives if epoch.in_batch else epoch.pool
    first = 0
    size = len(pool)
    samples = 0
    for block in range(start, stop, BLOCK):
        end = min(block + BLOCK, stop)
        if epoch.in_batch:
            head = block // BATCH * BATCH
            first = epoch.ptr[head]
            size = epoch.ptr[min(head + BATCH, len(epoch.users))] - first
        draw_rows(
            block, end, epoch.users, epoch.ptr, epoch.positives, known, pool, first, size, settings.negatives,
            epoch.seed, drawn, rows, ends,
        )  # fmt: skip
        samples += ends[end - block - 1] // run
        if users.dim or items.dim:
            step_packed_groups(
                block, end, epoch.users, rows, ends, users, items, settings, log_share, scores, pull, vector, aim, aims
            )
        else:
            step_groups(block, end, epoch.users, rows, ends, users, items, settings, log_share, scores, whole, slope)
    return samples

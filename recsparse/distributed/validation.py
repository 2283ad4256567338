"""Full-ranking metrics on sharded tables: users are shared out, items come to every rank a block at a time."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from recsparse.distributed.process import agreed, total
from recsparse.distributed.rows import LogicalTables
from recsparse.distributed.streams import Contents
from recsparse.errors import DataError
from recsparse.evaluation.metrics import per_user
from recsparse.evaluation.ranking import Ranking
from recsparse.interactions import Holdout
from recsparse.kernels import ranks as kernels
from recsparse.parallel import for_ranges

BLOCK_BYTES = 64 << 20
"""Scores in memory at a time, on each rank."""


def validate(
    tables: LogicalTables, names: tuple[str, str], contents: Contents, holdout: Holdout, rows: npt.NDArray[np.int64],
    metrics: Sequence[str], *, rank: int, world: int, block_bytes: int = BLOCK_BYTES,
) -> dict[str, float]:  # fmt: skip
    """Means of metrics over the holdout's users, as :func:`recsparse.evaluation.evaluate` gives them for trained users.

    Each rank ranks its part of the users against all items, which it gets twice, a block at a time: once for the
    targets' scores and once to count what is above them. No rank ever holds the item table.

    Args:
        tables: in training.
        names: of the user and the item table.
        contents: of the training data; its item counts answer for users with an empty history.
        holdout: histories and targets over the training items.
        rows: training rows of its users; all of them known.
        metrics: names as in :mod:`recsparse.evaluation.metrics`.
        rank: this process.
        world: how many there are.
        block_bytes: scores in memory.

    Raises:
        DataError: on every rank: a score is NaN.
    """
    n_users, n_items = holdout.target.shape
    bounds = n_users * np.arange(world + 1) // world
    own = slice(int(bounds[rank]), int(bounds[rank + 1]))
    seen, target = (_rows_of(part.matrix, own) for part in (holdout.history, holdout.target))
    queries = tables.fetch(names[0], torch.from_numpy(rows[own])).numpy()
    cold = np.diff(seen.indptr) == 0
    step = max(1, block_bytes // (4 * max(1, int(np.diff(bounds).max()))))
    scores_of = np.full(target.nnz, np.nan, dtype=np.float32)
    above, ties = np.zeros((2, target.nnz), dtype=np.int64)
    for counting in (False, True):
        for first in range(0, n_items, step):
            items = torch.arange(first, min(first + step, n_items))
            scores = queries @ tables.fetch(names[1], items).numpy().T
            scores[cold] = contents.items[first : first + len(items)]
            if counting:
                _count(scores, first, seen, target, scores_of, above, ties)
            else:
                _take(scores, first, target, scores_of)
    with agreed():
        if np.isnan(scores_of).any():
            raise DataError("A target's score is NaN; training has probably diverged.")
    return _means(_ranking(above + 1, ties, seen, target), metrics)


def _rows_of(matrix: sp.csr_array, own: slice) -> sp.csr_array:
    rows = sp.csr_array(matrix[own])
    return sp.csr_array((rows.data, rows.indices, rows.indptr.astype(np.int64)), shape=rows.shape).sorted_indices()


def _take(scores: npt.NDArray[np.float32], first: int, target: sp.csr_array, found: npt.NDArray[np.float32]) -> None:
    arguments = (scores, first, target.indptr, target.indices, found)
    for_ranges(lambda start, stop: kernels.take_target_scores(start, stop, *arguments), len(scores), step=64, n_jobs=1)


def _count(
    scores: npt.NDArray[np.float32], first: int, seen: sp.csr_array, target: sp.csr_array,
    found: npt.NDArray[np.float32], above: npt.NDArray[np.int64], ties: npt.NDArray[np.int64],
) -> None:  # fmt: skip
    arguments = (scores, first, seen.indptr, seen.indices, target.indptr, found, above, ties)
    for_ranges(lambda start, stop: kernels.count_above(start, stop, *arguments), len(scores), step=64, n_jobs=1)


def _ranking(
    ranks: npt.NDArray[np.int64], ties: npt.NDArray[np.int64], seen: sp.csr_array, target: sp.csr_array
) -> Ranking:
    users = np.repeat(np.arange(target.shape[0]), np.diff(target.indptr))
    order = np.lexsort((ranks, users))
    candidates = target.shape[1] - np.diff(seen.indptr)
    items = target.indices[order].astype(np.int32)
    return Ranking(target.indptr, ranks[order], ties[order], items, candidates, target.shape[1])


def _means(ranking: Ranking, metrics: Sequence[str]) -> dict[str, float]:
    values = (
        np.stack([per_user(ranking, metric) for metric in metrics]) if ranking.n_users else np.zeros((len(metrics), 0))
    )
    sums = torch.from_numpy(np.stack([np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1)]).astype(np.float64))
    total(sums)
    return {metric: float(sums[0, at] / sums[1, at]) for at, metric in enumerate(metrics)}

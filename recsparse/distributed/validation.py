"""Full-ranking metrics on sharded tables: users are shared out, items come to every rank a block at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from recsparse.distributed.folding import FoldIn
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


class Validation:
    """This rank's part of the held-out users, represented and ranked as :func:`recsparse.evaluation.evaluate` does.

    Each rank ranks its users against all items, which it gets twice, a block at a time: once for the targets' scores
    and once to count what is above them. No rank ever holds the item table. Users not trained on are folded in.

    Args:
        data: the training data.
        contents: of it; its item counts answer for users with an empty history.
        names: of the user and the item table.
        holdout: histories and targets over the training items.
        rows: training rows of its users, -1 for those not trained on.
        metrics: names as in :mod:`recsparse.evaluation.metrics`.
        rank: this process.
        world: how many there are.
    """

    def __init__(
        self, data: Path, contents: Contents, names: tuple[str, str], holdout: Holdout, rows: npt.NDArray[np.int64],
        metrics: Sequence[str], *, rank: int, world: int,
    ) -> None:  # fmt: skip
        bounds = holdout.target.shape[0] * np.arange(world + 1) // world
        own = slice(int(bounds[rank]), int(bounds[rank + 1]))
        self._seen, self._target = (_rows_of(part.matrix, own) for part in (holdout.history, holdout.target))
        self._rows, self._names, self._metrics = rows[own], names, metrics
        self._popularity, self._most_users = contents.items, int(np.diff(bounds).max())
        self._fold_in: FoldIn | None = None
        if (rows < 0).any():
            strangers = sp.csr_array(self._seen[np.flatnonzero(self._rows < 0)])
            self._fold_in = FoldIn(data, contents, names, strangers, rank, world)

    def measure(self, tables: LogicalTables, block_bytes: int = BLOCK_BYTES) -> dict[str, float]:
        """Means over all ranks' users; every rank calls it together.

        Raises:
            DataError: on every rank: a score is NaN.
        """
        seen, target = self._seen, self._target
        queries = self._queries(tables)
        cold = np.diff(seen.indptr) == 0
        step = max(1, block_bytes // (4 * max(1, self._most_users)))
        scores_of = np.full(target.nnz, np.nan, dtype=np.float32)
        above, ties = np.zeros((2, target.nnz), dtype=np.int64)
        for counting in (False, True):
            for first in range(0, len(self._popularity), step):
                items = torch.arange(first, min(first + step, len(self._popularity)))
                scores = queries @ tables.fetch(self._names[1], items).numpy().T
                scores[cold] = self._popularity[first : first + len(items)]
                if counting:
                    _count(scores, first, seen, target, scores_of, above, ties)
                else:
                    _take(scores, first, target, scores_of)
        with agreed():
            if np.isnan(scores_of).any():
                raise DataError("A target's score is NaN; training has probably diverged.")
        return _means(_ranking(above + 1, ties, seen, target), self._metrics)

    def _queries(self, tables: LogicalTables) -> npt.NDArray[np.float32]:
        trained = self._rows >= 0
        found = tables.fetch(self._names[0], torch.from_numpy(self._rows[trained])).numpy()
        queries = np.empty((len(self._rows), found.shape[1]), dtype=np.float32)
        queries[trained] = found
        if self._fold_in is not None:
            queries[~trained] = self._fold_in.queries(tables)
        return queries


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

"""Where every target stands in its user's full ranking: computed once, in blocks; every metric follows from it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.interactions.interactions import Interactions
from recsparse.kernels.metrics import NAN_SCORE, SEEN_TARGET, target_ranks
from recsparse.kernels.topk import top_k
from recsparse.models.base import Recommender, Scores
from recsparse.parallel import for_ranges

BLOCK_BYTES = 64 << 20
"""Scores in memory at a time."""


@dataclass(frozen=True)
class Ranking:
    """The ranks of each user's targets, best first, among all items the user has not seen.

    Attributes:
        indptr: (U + 1,) int64; user ``u`` has the entries ``indptr[u]:indptr[u + 1]``.
        ranks: (nnz,) int64, 1 and the unseen items that score higher; ascending within a user.
        ties: (nnz,) int64, the unseen items of the very same score, the target included: 1 where it has that of its
            own. Such items stand at ``rank .. rank + ties - 1`` in an order that says nothing.
        items: (nnz,) int32, the target's item row.
        candidates: (U,) int64, how many items were ranked: the catalogue less what the user has seen.
        n_items: the size of the catalogue.
    """

    indptr: npt.NDArray[np.int64]
    ranks: npt.NDArray[np.int64]
    ties: npt.NDArray[np.int64]
    items: npt.NDArray[np.int32]
    candidates: npt.NDArray[np.int64]
    n_items: int

    @property
    def n_users(self) -> int:
        """Users, those without a target included."""
        return len(self.candidates)

    @cached_property
    def targets(self) -> npt.NDArray[np.int64]:
        """(U,) int64, the number of targets of each user."""
        return np.diff(self.indptr)

    @cached_property
    def users(self) -> npt.NDArray[np.int64]:
        """(nnz,) int64, the user of each entry."""
        return np.repeat(np.arange(self.n_users), self.targets)

    @cached_property
    def position(self) -> npt.NDArray[np.int64]:
        """(nnz,) int64, from 1: the how-manieth of its user's targets an entry is."""
        return np.arange(1, len(self.ranks) + 1) - self.indptr[:-1].repeat(self.targets)

    @cached_property
    def level(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(nnz,) int64 each: the user's targets that score above an entry, and those that score as it, itself too."""
        first = (self.position == 1) | (self.ranks != np.roll(self.ranks, 1))
        starts = np.flatnonzero(first)
        sizes = np.diff(np.append(starts, len(self.ranks)))
        return np.repeat(self.position[starts] - 1, sizes), np.repeat(sizes, sizes)

    def total(
        self, values: npt.NDArray[np.float64], at: npt.NDArray[np.int64] | slice = slice(None)
    ) -> npt.NDArray[np.float64]:
        """Sum a value an entry (those ``at``, all by default) into a value a user, (U,) float64."""
        return np.bincount(self.users[at], weights=values, minlength=self.n_users).astype(np.float64, copy=False)

    def restrict(self, items: npt.NDArray[np.bool_]) -> "Ranking":
        """Keep only the targets among ``items`` (a mask over the catalogue); what they compete with stays the same."""
        keep = items[self.items]
        counts = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        return replace(
            self, indptr=counts[self.indptr], ranks=self.ranks[keep], ties=self.ties[keep], items=self.items[keep]
        )

    def take_users(self, rows: npt.NDArray[np.int64]) -> "Ranking":
        """Only these users, in this order."""
        counts = self.targets[rows]
        indptr = np.concatenate([[0], np.cumsum(counts)])
        at = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], counts)
        return replace(
            self, indptr=indptr, ranks=self.ranks[at], ties=self.ties[at], items=self.items[at],
            candidates=self.candidates[rows],
        )  # fmt: skip


def score_blocks(
    model: Recommender, history: Interactions, *, fold_in: bool = False, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, int, Scores]]:
    """Yield ``(start, stop, scores)`` over the users of ``history``, as ``recommend`` would score them.

    Users of whom nothing is known are answered by popularity, as :meth:`Recommender.unknown` says. With ``fold_in``
    users are known by their history and features alone, also those whom a model was trained on.
    """
    history = history.with_items(model.items_)
    n_users, n_items = history.shape
    step = max(1, min(1024, block_bytes // (4 * n_items)))
    for start in range(0, n_users, step):
        rows = sp.csr_array(history.matrix[start : start + step])
        stop = start + rows.shape[0]
        users = Interactions(rows, history.users.slice(start, stop - start), history.items)
        queries = model.fold_in(users) if fold_in else model.queries(users)
        scores = np.asarray(model.scores(queries), dtype=np.float32)
        unknown = model.unknown(rows, users.users)
        if unknown.any():
            scores = np.array(scores)
            scores[unknown] = model.popularity_
        yield start, stop, scores


def best_items(
    model: Recommender, history: Interactions, k: int, *, seen: Interactions | None = None
) -> npt.NDArray[np.int32]:
    """The ``k`` best unseen items of each user, (U, k) item rows, -1 where fewer remain; ties to the lower row."""
    excluded = (history if seen is None else seen).with_items(model.items_).matrix
    best = np.empty((history.shape[0], k), dtype=np.int32)
    for start, stop, scores in score_blocks(model, history):
        rows = sp.csr_array(excluded[start:stop])
        best[start:stop] = top_k(np.ascontiguousarray(scores), k, rows.indptr, rows.indices)[0]
    return best


def rank_targets(
    model: Recommender,
    history: Interactions,
    target: Interactions,
    *,
    seen: Interactions | None = None,
    among: npt.NDArray[np.bool_] | None = None,
    fold_in: bool = False,
    n_jobs: int | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Ranking:
    """Rank every target against the whole catalogue, items seen left out.

    Args:
        model: fitted; users are represented by ``model.queries(history)``, as ``recommend`` does it.
        history: what the model may know of each user.
        target: what it is to find, the same users in the same order.
        seen: what is left out of each user's candidates; ``history`` by default.
        among: (I,), rank these items only, and count only targets among them; the whole catalogue by default.
        fold_in: know users by ``history`` alone, also where the model was trained on them.
        n_jobs: threads that rank (the model has its own).
        block_bytes: scores in memory at a time.

    Raises:
        DataError: users differ, a target is in the user's seen items or unknown to the model, or a score is NaN.

    Cost: targets x items comparisons, eight a machine instruction; memory ``block_bytes`` and the targets.
    """
    _check_users(history, target)
    seen = history if seen is None else seen
    _check_users(seen, target)
    seen_matrix = _sorted(seen.with_items(model.items_).matrix)
    target_known = target.with_items(model.items_)
    if target_known.nnz < target.nnz:
        raise DataError(
            f"The model's catalogue lacks items of {target.nnz - target_known.nnz} targets; "
            "evaluate it on the split it was trained for."
        )
    target_matrix = _sorted(target_known.matrix)
    n_users, n_items = target_matrix.shape
    columns = None if among is None else np.flatnonzero(among)
    if columns is not None:
        seen_matrix, target_matrix = _sorted(seen_matrix[:, columns]), _sorted(target_matrix[:, columns])
    items = np.empty(target_matrix.nnz, dtype=np.int32)
    ranks, ties = np.empty((2, target_matrix.nnz), dtype=np.int64)
    wrong = np.zeros(n_users, dtype=np.int8)
    for first, last, scores in score_blocks(model, history, fold_in=fold_in, block_bytes=block_bytes):
        if scores.shape != (last - first, n_items):
            raise DataError(f"The model scored {scores.shape}; {(last - first, n_items)} users x items were asked for.")
        work = partial(
            target_ranks,
            np.ascontiguousarray(scores if columns is None else scores[:, columns]),
            seen_matrix.indptr[first : last + 1],
            seen_matrix.indices,
            target_matrix.indptr[first : last + 1],
            target_matrix.indices,
            items,
            ranks,
            ties,
            wrong[first:last],
        )
        for_ranges(work, last - first, step=256, n_jobs=n_jobs)
        _check_rows(wrong[first:last], target.user_ids[first:last])
    return Ranking(
        indptr=target_matrix.indptr,
        ranks=ranks,
        ties=ties,
        items=items if columns is None else columns[items].astype(np.int32),
        candidates=np.asarray(seen_matrix.shape[1] - np.diff(seen_matrix.indptr), dtype=np.int64),
        n_items=n_items,
    )


def _sorted(matrix: sp.csr_array) -> sp.csr_array:
    """Items ascending within a user, ``indptr`` int64 whatever SciPy chose."""
    found = matrix if matrix.has_sorted_indices else matrix.sorted_indices()
    return sp.csr_array((found.data, found.indices, found.indptr.astype(np.int64)), shape=found.shape)


def _check_users(first: Interactions, second: Interactions) -> None:
    if first.shape[0] != second.shape[0] or not np.array_equal(first.user_ids, second.user_ids):
        raise DataError(
            f"History and target must hold the same users in the same order; there are {first.shape[0]} and "
            f"{second.shape[0]} users."
        )


def _check_rows(wrong: npt.NDArray[np.int8], user_ids: npt.NDArray[Any]) -> None:
    for code, says in (
        (NAN_SCORE, "The model gives NaN scores for user {!r}; its training has probably diverged."),
        (
            SEEN_TARGET,
            "A target of user {!r} was seen already, so it could never be recommended; split the data again so that "
            "history and target share nothing.",
        ),
    ):
        if (wrong == code).any():
            raise DataError(says.format(user_ids[int(np.flatnonzero(wrong == code)[0])]))

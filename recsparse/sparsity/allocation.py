"""Where the budget goes: the same share for each row, or wherever the scores are highest, within bounds."""

from abc import abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, PositiveInt

from recsparse.sparsity.best import best
from recsparse.sparsity.piece import Piece, named

Scores = npt.NDArray[np.floating[Any]]
Kept = npt.NDArray[np.bool_]
Counts = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]
Loss = Callable[[npt.NDArray[np.int64], Kept], float]
"""The loss of training when these rows keep only these of their groups; rows that are not named stay as they are."""

LEVELS = (*(0.8**step for step in range(19)), 0.0)
"""The shares of a part that :class:`Sensitivity` measures."""


class _Allocation(Piece):
    def weigh(self, scores: Scores, counts: Counts, loss: Loss) -> Scores:
        """The scores to go by, found once for whatever budget; finite where ``scores`` are."""
        return scores

    @abstractmethod
    def keep(self, scores: Scores, budget: int, counts: Counts) -> Kept:
        """Keep exactly ``budget`` groups of finite score, or all of these; ties go to the lower index.

        Args:
            scores: (rows, columns) of groups, -inf where one must not be kept.
            budget: how many to keep.
            counts: (rows,) interactions of each row of groups.
        """

    def renew(self, scores: Scores, kept: Kept, counts: Counts) -> Kept:
        """Keep as many groups as are ``kept``, by other scores, all finite, without moving the budget."""
        return self.keep(scores, int(kept.sum()), counts)

    @abstractmethod
    def parts(self, kept: Kept, counts: Counts) -> Rows:
        """The number, from 0, of the part each row of groups is in, (rows,); of every part, the best were ``kept``."""


class Global(_Allocation):
    """The best groups of the whole table."""

    kind: Literal["global"] = "global"

    def keep(self, scores: Scores, budget: int, counts: Counts) -> Kept:
        """Keep the ``budget`` best.

        >>> Global().keep(np.array([[3.0, 1.0], [2.0, 0.0]]), 2, np.ones(2))
        array([[ True, False],
               [ True, False]])
        """
        kept = np.zeros(scores.size, dtype=np.bool_)
        kept[best(scores.ravel(), budget)] = True
        return kept.reshape(scores.shape)

    def parts(self, kept: Kept, counts: Counts) -> Rows:
        """One."""
        return np.zeros(len(kept), dtype=np.int64)


class Uniform(_Allocation):
    """The best groups of each row, equally many in each; what does not divide goes where the scores are highest."""

    kind: Literal["uniform"] = "uniform"

    def keep(self, scores: Scores, budget: int, counts: Counts) -> Kept:
        """Keep ``budget // rows`` in each row, then the best of the rest.

        >>> Uniform().keep(np.array([[3.0, 2.0], [1.0, 0.0]]), 2, np.ones(2))
        array([[ True, False],
               [ True, False]])
        """
        share = np.full(len(scores), budget // len(scores))
        kept = _best_of_rows(scores, share)
        return _fill(kept, scores, budget)

    def parts(self, kept: Kept, counts: Counts) -> Rows:
        """Each row is one."""
        return np.arange(len(kept))


class BestRows(_Allocation):
    """Only the ``share`` of rows with the highest sums get anything; within them, the best groups.

    Rows go first and entries after them: while the budget is larger than ``share`` of the table, whole rows go.
    """

    kind: Literal["best-rows"] = "best-rows"
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5

    def keep(self, scores: Scores, budget: int, counts: Counts) -> Kept:
        """Keep ``budget`` groups in the best rows."""
        alive = np.where(np.isfinite(scores), scores, 0).sum(axis=1)
        alive[~np.isfinite(scores).any(axis=1)] = -np.inf
        rows = max(round(self.share * len(scores)), -(-budget // scores.shape[1]))
        inside = np.zeros(len(scores), dtype=np.bool_)
        inside[best(alive, rows)] = True
        kept = Global().keep(np.where(inside[:, None], scores, -np.inf), budget, counts)
        return _fill(kept, scores, budget)

    def parts(self, kept: Kept, counts: Counts) -> Rows:
        """Rows that have something, and those that have nothing."""
        return np.asarray(kept.any(axis=1), dtype=np.int64)


class PopularityGroups(_Allocation):
    """Rows of similar popularity share a budget: each of ``groups`` groups of equal size has its density.

    A group's density is proportional to (its interactions a row) ** ``power``: 0 is the same for all, 1 is proportional
    to popularity. None measures it: each group gets what its scores claim, in units of their median in the group, so
    that a group whose scores are spread out (some entries matter far more) is cut deeper.
    """

    kind: Literal["popularity-groups"] = "popularity-groups"
    groups: PositiveInt = 5
    power: float | None = 0.5

    def keep(self, scores: Scores, budget: int, counts: Counts) -> Kept:
        """Keep the best of each group."""
        parts = _by_popularity(counts, self.groups)
        claims = np.array([self._claim(scores[part], counts[part]) for part in parts])
        room = np.array([int(np.isfinite(scores[part]).sum()) for part in parts])
        kept = np.zeros(scores.shape, dtype=np.bool_)
        for part, share in zip(parts, _divide(budget, claims, room), strict=True):
            kept[part] = Global().keep(scores[part], int(share), counts[part])
        return kept

    def renew(self, scores: Scores, kept: Kept, counts: Counts) -> Kept:
        """Keep as many in each group as are ``kept`` there: other scores would make other claims."""
        renewed = np.zeros_like(kept)
        for part in _by_popularity(counts, self.groups):
            renewed[part] = Global().keep(scores[part], int(kept[part].sum()), counts[part])
        return renewed

    def parts(self, kept: Kept, counts: Counts) -> Rows:
        """The groups."""
        return _numbers(_by_popularity(counts, self.groups))

    def _claim(self, scores: Scores, counts: Counts) -> float:
        if self.power is not None:
            return float(scores.size * (counts.mean() + 1.0) ** self.power)
        finite = scores[np.isfinite(scores)]
        return float(finite.sum() / max(float(np.median(finite)), 1e-30)) if len(finite) else 0.0


class Sensitivity(_Allocation):
    """Rows of similar popularity form ``groups`` parts of equal size, and the budget goes where the loss needs it.

    For each part alone, the loss is measured when the part keeps its best 100 %, 80 %, 64 %, ... 2 % and nothing. The
    lower convex hull of loss over entries gives every entry a price: what it saves by the hull's slope at its rank.
    The highest prices of all parts are kept, which is the least sum of losses on the hulls that any densities of the
    parts with this budget have. On iALS what is measured is the exact loss, solved on what is kept; on MF the BPR loss
    of 32,768 training pairs, not trained again. Loss is measured anew at each decision: 20 losses a part.
    """

    kind: Literal["sensitivity"] = "sensitivity"
    groups: PositiveInt = 5

    def weigh(self, scores: Scores, counts: Counts, loss: Loss) -> Scores:
        """Number the groups of finite score in order of their price, the dearest highest.

        >>> scores, worth = np.array([[3.0, 1.0], [2.0, 0.5]]), np.array([1.0, 100.0])
        >>> Sensitivity(groups=2).weigh(scores, np.array([1, 9]), lambda rows, kept: worth[rows] @ (~kept).sum(axis=1))
        array([[1., 0.],
               [3., 2.]])
        """
        places, prices, ranks = [], [], []
        for part in _by_popularity(counts, self.groups):
            own = scores[part].ravel()
            ranked = np.argsort(-own, kind="stable")[: int(np.isfinite(own).sum())]
            places.append((part[:, None] * scores.shape[1] + np.arange(scores.shape[1])).ravel()[ranked])
            prices.append(_prices(part, ranked, scores.shape[1], loss))
            ranks.append(np.arange(len(ranked)) / max(len(ranked), 1))
        dearest = np.lexsort([np.concatenate(ranks), -np.concatenate(prices)])
        weighed = np.full(scores.size, -np.inf)
        weighed[np.concatenate(places)[dearest]] = np.arange(len(dearest), dtype=np.float64)[::-1]
        return weighed.reshape(scores.shape)

    def keep(self, scores: Scores, budget: int, counts: Counts) -> Kept:
        """Keep the dearest."""
        return Global().keep(scores, budget, counts)

    def parts(self, kept: Kept, counts: Counts) -> Rows:
        """The parts whose loss is measured."""
        return _numbers(_by_popularity(counts, self.groups))


def _by_popularity(counts: Counts, groups: int) -> list[Rows]:
    """The rows of each of so many groups of equal size, or of as many as there are rows, least popular first."""
    return np.array_split(np.argsort(counts, kind="stable"), min(groups, len(counts)))


def _numbers(parts: list[Rows]) -> Rows:
    """The number of each row's part."""
    numbers = np.empty(sum(map(len, parts)), dtype=np.int64)
    for number, part in enumerate(parts):
        numbers[part] = number
    return numbers


def _prices(rows: npt.NDArray[np.int64], ranked: npt.NDArray[np.int64], columns: int, loss: Loss) -> Scores:
    """What each of a part's groups saves, best rank first: never more than the one before it."""
    n = len(ranked)
    sizes = sorted({round(n * level) for level in LEVELS})
    hull: list[tuple[int, float]] = []
    for size in sizes:
        kept = np.zeros(len(rows) * columns, dtype=np.bool_)
        kept[ranked[:size]] = True
        point = size, loss(rows, kept.reshape(len(rows), columns))
        while len(hull) > 1 and _saved(hull[-2], hull[-1]) <= _saved(hull[-1], point):
            hull.pop()
        hull.append(point)
    prices = np.zeros(n)
    for left, right in pairwise(hull):
        prices[left[0] : right[0]] = _saved(left, right)
    return prices


def _saved(left: tuple[int, float], right: tuple[int, float]) -> float:
    return (left[1] - right[1]) / (right[0] - left[0])


def _best_of_rows(scores: Scores, share: npt.NDArray[Any]) -> Kept:
    order = np.argsort(-scores, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(scores.shape[1])[None, :], axis=1)
    return np.asarray((rank < share[:, None]) & np.isfinite(scores))


def _fill(kept: Kept, scores: Scores, budget: int) -> Kept:
    """Add the best groups that are not kept until ``budget`` is."""
    rest = np.where(kept, -np.inf, scores).ravel()
    kept.ravel()[best(rest, budget - int(kept.sum()))] = True
    return kept


def _divide(budget: int, claims: npt.NDArray[Any], room: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Divide ``budget`` in proportion to ``claims``, no part more than its ``room``, whole numbers, all of it."""
    share = np.zeros(len(claims), dtype=np.int64)
    budget = min(budget, int(room.sum()))
    while (left := budget - int(share.sum())) > 0:
        open_ = share < room
        weights = np.where(open_, np.maximum(claims, 1e-30), 0.0)
        wanted = np.minimum(np.floor(left * weights / weights.sum()).astype(np.int64), room - share)
        if wanted.sum() == 0:
            wanted[int(np.argmax(weights))] = 1
        share += wanted
    return share


Allocation = Annotated[
    Uniform | Global | BestRows | PopularityGroups | Sensitivity, Field(discriminator="kind"), BeforeValidator(named)
]

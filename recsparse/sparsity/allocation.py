"""Where the budget goes: the same share for each row, or wherever the scores are highest."""

from abc import abstractmethod
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from recsparse.sparsity.piece import Piece, named

Scores = npt.NDArray[np.floating[Any]]
Kept = npt.NDArray[np.bool_]


class _Allocation(Piece):
    @abstractmethod
    def keep(self, scores: Scores, budget: int) -> Kept:
        """Keep exactly ``budget`` groups of highest score; ties go to the lower index."""


class Global(_Allocation):
    """The best groups of the whole table."""

    kind: Literal["global"] = "global"

    def keep(self, scores: Scores, budget: int) -> Kept:
        """Keep the ``budget`` best.

        >>> Global().keep(np.array([[3.0, 1.0], [2.0, 0.0]]), 2)
        array([[ True, False],
               [ True, False]])
        """
        kept = np.zeros(scores.size, dtype=np.bool_)
        kept[best(scores.ravel(), budget)] = True
        return kept.reshape(scores.shape)


class Uniform(_Allocation):
    """The best groups of each row, equally many in each; what does not divide goes where the scores are highest."""

    kind: Literal["uniform"] = "uniform"

    def keep(self, scores: Scores, budget: int) -> Kept:
        """Keep ``budget // rows`` in each row, then the best of the rest.

        >>> Uniform().keep(np.array([[3.0, 2.0], [1.0, 0.0]]), 2)
        array([[ True, False],
               [ True, False]])
        """
        rows = scores.shape[0]
        order = np.argsort(-scores, axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(scores.shape[1])[None, :], axis=1)
        kept: Kept = rank < budget // rows
        extra = np.where(rank == budget // rows, scores, -np.inf)
        kept.ravel()[best(extra.ravel(), budget - int(kept.sum()))] = True
        return kept


def best(scores: Scores, budget: int) -> npt.NDArray[np.int64]:
    """Positions of the ``budget`` highest scores; ties go to the lower position. O(n)."""
    if budget <= 0:
        return np.empty(0, dtype=np.int64)
    if budget >= len(scores):
        return np.arange(len(scores), dtype=np.int64)
    threshold = np.partition(scores, len(scores) - budget)[len(scores) - budget]
    above = np.flatnonzero(scores > threshold)
    ties = np.flatnonzero(scores == threshold)
    return np.concatenate([above, ties[: budget - len(above)]])


Allocation = Annotated[Uniform | Global, Field(discriminator="kind"), BeforeValidator(named)]

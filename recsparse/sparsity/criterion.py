"""What ranks the groups: the lower the score, the sooner a group is dropped.

Scores are energies, so that a group's score is the sum over its entries: magnitude at row granularity is the squared
row norm.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from recsparse.errors import ConfigError
from recsparse.sparsity.best import Leaders, best
from recsparse.sparsity.piece import Piece, named

Array = npt.NDArray[np.floating[Any]]


def _unmeasured(rows: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_]) -> float:
    raise ConfigError("The loss of pruned rows is not measured here; use another allocation than sensitivity.")


def _unknown() -> Array:
    raise ConfigError("The loss has no least-squares curvature here; use another criterion than loss-increase.")


Score = Callable[["Evidence", int], Array]


@dataclass(frozen=True)
class Evidence:
    """What a trainer knows about a table when it prunes; what is costly is computed only if the criterion asks.

    Attributes:
        values: (R, D), the table.
        counts: (R,), interactions of each row in the training data.
        gradients: gives (R, D), the loss's derivative by each entry.
        curvature: gives (R, D), 1 / (A⁻¹)_jj of each row's normal matrix A on the row's support.
        loss: gives the loss of training, up to a constant, when these rows (R',) keep only these entries (R', D) and
            all others stay as they are.
    """

    values: Array
    counts: Array
    gradients: Callable[[], Array]
    curvature: Callable[[], Array] = _unknown
    loss: Callable[[npt.NDArray[np.int64], npt.NDArray[np.bool_]], float] = _unmeasured

    @property
    def shape(self) -> tuple[int, int]:
        """(R, D)."""
        return self.values.shape[0], self.values.shape[1]

    def whole(self) -> "Evidence":
        """The same; as of :class:`Piecewise`."""
        return self

    def best(self, score: Score, budget: int, size: int) -> npt.NDArray[np.integer]:
        """The places, ascending, of the ``budget`` highest of ``size`` scores above -inf; ties go to the lower place.

        Args:
            score: gives the scores of a part of the table, and is told its first row.
            budget: how many.
            size: scores of the whole table.
        """
        return np.sort(best(score(self, 0).ravel(), budget))


@dataclass(frozen=True)
class Piecewise:
    """What a trainer knows about a table that is never whole: it is looked at by pieces of a few rows.

    Attributes:
        shape: (R, D).
        counts: (R,), as in :class:`Evidence`.
        piece: gives what is known about rows from the first number to before the second.
        rows: of a piece.
    """

    shape: tuple[int, int]
    counts: Array
    piece: Callable[[int, int], Evidence]
    rows: int

    def whole(self) -> Evidence:
        """All rows at once."""
        return self.piece(0, self.shape[0])

    def best(self, score: Score, budget: int, size: int) -> npt.NDArray[np.integer]:
        """What :meth:`Evidence.best` gives; scores are compared in single precision. 10 bytes a place, no more."""
        if size >= 1 << 32:
            return self.whole().best(score, budget, size)
        leaders, seen = Leaders(budget), 0
        for start in range(0, self.shape[0], self.rows):
            scores = score(self.piece(start, min(start + self.rows, self.shape[0])), start).ravel()
            leaders.add(scores, seen)
            seen += len(scores)
        return leaders.places()


Knowledge = Evidence | Piecewise
"""Of a table that is whole, or of one that is not."""


class _Criterion(Piece):
    @abstractmethod
    def scores(self, evidence: Evidence) -> Array:
        """Energies (R, D), to be summed over groups."""


class Magnitude(_Criterion):
    """v²: small entries, or rows of small norm, go first."""

    kind: Literal["magnitude"] = "magnitude"

    def scores(self, evidence: Evidence) -> Array:
        """v²."""
        return np.square(evidence.values)


class Frequency(_Criterion):
    """Interactions of the row: rare ids go first. Within a row all entries are equal, so use it for rows."""

    kind: Literal["frequency"] = "frequency"

    def scores(self, evidence: Evidence) -> Array:
        """The row's count, shared evenly by its entries."""
        dim = evidence.values.shape[1]
        return np.repeat(evidence.counts[:, None] / dim, dim, axis=1)


class Gradient(_Criterion):
    """g²: entries the loss does not pull at go first."""

    kind: Literal["gradient"] = "gradient"

    def scores(self, evidence: Evidence) -> Array:
        """g²."""
        return np.square(evidence.gradients())


class Saliency(_Criterion):
    """|v g|: the first-order change of the loss when the entry is set to zero (SNIP, Lee et al. 2019, eq. 5)."""

    kind: Literal["saliency"] = "saliency"

    def scores(self, evidence: Evidence) -> Array:
        """|v g|."""
        return np.abs(evidence.values * evidence.gradients())


class LossIncrease(_Criterion):
    """v² / (A⁻¹)_jj: how much the row's least-squares loss grows when the entry goes and the rest is solved again.

    The optimal brain surgeon's saliency (Hassibi and Stork 1993, eq. 5), exact for one entry of a quadratic loss.
    """

    kind: Literal["loss-increase"] = "loss-increase"

    def scores(self, evidence: Evidence) -> Array:
        """v² / (A⁻¹)_jj."""
        return np.square(evidence.values) * evidence.curvature()


Criterion = Annotated[
    Magnitude | Frequency | Gradient | Saliency | LossIncrease, Field(discriminator="kind"), BeforeValidator(named)
]

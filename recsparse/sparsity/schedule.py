"""When a table becomes sparse: the density allowed at each moment of training, and what else happens then.

``progress`` is the share of training that is done, 0 to 1; schedules are asked after every epoch.
"""

from math import cos, pi
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from recsparse.sparsity.piece import Piece, named

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class _Schedule(Piece):
    def density(self, progress: float, target: float) -> float:
        """The share of entries allowed at this moment, when ``target`` is to be left at the end."""
        raise NotImplementedError

    def exchange(self, progress: float) -> float:
        """The share of kept groups to be exchanged for others at this moment."""
        return 0.0

    def rewinds(self, progress: float, previous: float) -> bool:
        """Whether values go back to where they were early in training, between the two moments."""
        return False

    def shrinks(self) -> bool:
        """Whether what is kept is pulled towards zero by the threshold that decides what goes."""
        return False


class OneShot(_Schedule):
    """Dense until training ends, then pruned at once."""

    kind: Literal["oneshot"] = "oneshot"

    def density(self, progress: float, target: float) -> float:
        """1 before the end (``progress`` 1), ``target`` there."""
        return target if progress >= 1.0 else 1.0


class Gradual(_Schedule):
    """From dense to the target between two moments of training, once or again after restarts.

    With s the way from ``start`` to ``end`` in [0, 1] and d the target density, the density is
    ``1 - (1 - d) s`` (linear), ``d + (1 - d) (1 - s)³`` (cubic: Zhu and Gupta 2017, eq. 1) or ``d^s`` (exponential:
    the same share goes at each step). With ``restarts`` the way is gone so many times more; at each restart all entries
    are alive again, with the others at the values they had.

    Example:
        >>> Gradual(shape="exponential", start=0.0, end=1.0).density(0.5, 0.01)
        0.1
    """

    kind: Literal["gradual"] = "gradual"
    shape: Literal["linear", "cubic", "exponential"] = "exponential"
    start: Fraction = 0.2
    end: Fraction = 0.8
    restarts: NonNegativeInt = 0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"start ({self.start}) must come before end ({self.end})")
        return self

    def density(self, progress: float, target: float) -> float:
        """The share of entries allowed when ``progress`` (0 to 1) of training is done."""
        way = min(max((progress - self.start) / (self.end - self.start), 0.0), 1.0)
        s = 1.0 if way == 1.0 else way * (self.restarts + 1) % 1.0
        if self.shape == "linear":
            return 1.0 - (1.0 - target) * s
        if self.shape == "cubic":
            return float(target + (1.0 - target) * (1.0 - s) ** 3)
        return float(target**s)


class Dynamic(_Schedule):
    """The budget holds from the first step on: what is least is dropped, and grown where the loss pulls most.

    After each epoch up to ``end``, the share ``rate (1 + cos(π progress / end)) / 2`` of the kept groups is exchanged:
    those of lowest criterion go, those of largest gradient come (Evci et al., "Rigging the lottery", 2020, section 3),
    each where the allocation has its budget.
    """

    kind: Literal["dynamic"] = "dynamic"
    rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    end: Annotated[float, Field(gt=0.0, le=1.0)] = 0.75

    def density(self, progress: float, target: float) -> float:
        """Always ``target``."""
        return target

    def exchange(self, progress: float) -> float:
        """Falls along a half cosine to zero at ``end``."""
        return 0.0 if progress >= self.end else self.rate * (1 + cos(pi * progress / self.end)) / 2


class Tickets(_Schedule):
    """Train, prune, go back to the early values of what is left, and train again (Frankle and Carbin 2019).

    Training is cut into ``rounds`` + 1 parts of equal length. After each but the last, the same share is pruned,
    so that ``target`` is left after the last; the values go back to those after ``rewind`` of the first part.
    """

    kind: Literal["tickets"] = "tickets"
    rounds: PositiveInt = 3
    rewind: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3

    def density(self, progress: float, target: float) -> float:
        """``target ** (parts done / rounds)``."""
        return float(target ** (self._part(progress) / self.rounds))

    def rewinds(self, progress: float, previous: float) -> bool:
        """True where a part but the last has ended between the two moments."""
        return self._part(progress) > self._part(previous)

    def remembers(self, progress: float, previous: float) -> bool:
        """Whether the values at this moment are those to go back to."""
        moment = self.rewind / (self.rounds + 1)
        return previous < moment <= progress

    def _part(self, progress: float) -> int:
        return min(int(progress * (self.rounds + 1) + 1e-9), self.rounds)


class SoftThreshold(_Schedule):
    """Proximal training: after each epoch all entries shrink by one threshold, and those below it are zero.

    Each part that the allocation makes has a threshold of its own: what leaves the density of :class:`Gradual` (so the
    budget is met); an entry that is zero may come back. With elements this is the proximal step of an L1 penalty, with
    rows or blocks of a group lasso; the penalty is learned from the budget, as soft thresholds are in PEP (Liu et al.
    2021). When the target is reached the support stays, and what is kept is solved without the penalty.
    """

    kind: Literal["soft-threshold"] = "soft-threshold"
    start: Fraction = 0.1
    end: Fraction = 0.7

    def density(self, progress: float, target: float) -> float:
        """As of an exponential :class:`Gradual`."""
        return Gradual(start=self.start, end=self.end).density(progress, target)

    def shrinks(self) -> bool:
        """Yes."""
        return True


Schedule = Annotated[
    OneShot | Gradual | Dynamic | Tickets | SoftThreshold, Field(discriminator="kind"), BeforeValidator(named)
]

"""When a table becomes sparse: the density allowed at each moment of training."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from recsparse.sparsity.piece import Piece, named

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class OneShot(Piece):
    """Dense until training ends, then pruned at once."""

    kind: Literal["oneshot"] = "oneshot"

    def density(self, progress: float, target: float) -> float:
        """1 before the end (``progress`` 1), ``target`` there."""
        return target if progress >= 1.0 else 1.0


class Gradual(Piece):
    """From dense to the target between two moments of training.

    With s the way from ``start`` to ``end`` in [0, 1] and d the target density, the density is
    ``1 - (1 - d) s`` (linear), ``d + (1 - d) (1 - s)³`` (cubic: Zhu and Gupta 2017, eq. 1) or ``d^s`` (exponential:
    the same share goes at each step).

    Example:
        >>> Gradual(shape="exponential", start=0.0, end=1.0).density(0.5, 0.01)
        0.1
    """

    kind: Literal["gradual"] = "gradual"
    shape: Literal["linear", "cubic", "exponential"] = "exponential"
    start: Fraction = 0.2
    end: Fraction = 0.8

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"start ({self.start}) must come before end ({self.end})")
        return self

    def density(self, progress: float, target: float) -> float:
        """The share of entries allowed when ``progress`` (0 to 1) of training is done."""
        s = min(max((progress - self.start) / (self.end - self.start), 0.0), 1.0)
        if self.shape == "linear":
            return 1.0 - (1.0 - target) * s
        if self.shape == "cubic":
            return float(target + (1.0 - target) * (1.0 - s) ** 3)
        return float(target**s)


Schedule = Annotated[OneShot | Gradual, Field(discriminator="kind"), BeforeValidator(named)]

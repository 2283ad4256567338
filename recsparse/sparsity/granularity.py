"""What is kept or dropped together: an element, a block of r x c, or a row."""

from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, PositiveInt

from recsparse.errors import ConfigError
from recsparse.sparsity.piece import Piece, named

Scores = npt.NDArray[np.floating[Any]]
Kept = npt.NDArray[np.bool_]


class _Grouping(Piece):
    """Tiles a (R, D) table with groups of one shape."""

    def group_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of one group in a table of this shape."""
        raise NotImplementedError

    def reduce(self, scores: Scores) -> Scores:
        """Sum entry scores (R, D) over each group: (R / r, D / c).

        >>> Block(rows=1, columns=2).reduce(np.array([[1.0, 2.0, 3.0, 4.0]]))
        array([[3., 7.]])
        """
        r, c = self.tiling(scores.shape)
        grouped: Scores = scores.reshape(scores.shape[0] // r, r, scores.shape[1] // c, c).sum(axis=(1, 3))
        return grouped

    def expand(self, kept: Kept, shape: tuple[int, int]) -> Kept:
        """Turn a mask of groups into a mask (R, D) of entries."""
        r, c = self.tiling(shape)
        return np.repeat(np.repeat(kept, r, axis=0), c, axis=1)

    def tiling(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """What :meth:`group_shape` says, of a table that groups tile.

        Raises:
            ConfigError: they do not.
        """
        r, c = self.group_shape((shape[0], shape[1]))
        if shape[0] % r or shape[1] % c:
            raise ConfigError(
                f"Blocks of {r} x {c} do not tile a table of {shape[0]} x {shape[1]}; choose divisors of both."
            )
        return r, c


class Element(_Grouping):
    """Each entry alone: unstructured sparsity."""

    kind: Literal["element"] = "element"

    def group_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """One entry."""
        return 1, 1


class Block(_Grouping):
    """Blocks of ``rows`` x ``columns``, aligned: structured sparsity."""

    kind: Literal["block"] = "block"
    rows: PositiveInt = 1
    columns: PositiveInt = 4

    def group_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The block."""
        return self.rows, self.columns


class Row(_Grouping):
    """Whole rows: an id has its embedding or takes the fallback."""

    kind: Literal["row"] = "row"

    def group_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """One row over all columns."""
        return 1, shape[1]


Granularity = Annotated[Element | Block | Row, Field(discriminator="kind"), BeforeValidator(named)]

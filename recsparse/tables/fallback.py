"""Fallbacks: what an id without a stored row returns. A pruned id and a never-seen id take the same path."""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from recsparse.errors import DataError
from recsparse.tables.bits import frozen
from recsparse.tables.values import Floats

Ids = npt.NDArray[np.int64]
Tensors = dict[str, npt.NDArray[Any]]


class Fallback(Protocol):
    """How a table answers for rows it has not stored."""

    kind: ClassVar[str]

    @property
    def header(self) -> dict[str, Any]:
        """What a file says of it, JSON."""

    def tensors(self) -> Tensors:
        """What is stored, by name."""

    @classmethod
    def from_tensors(cls, header: dict[str, Any], tensors: Tensors) -> Self:
        """The inverse."""

    def fill(self, ids: Ids, missing: Ids, out: Floats) -> None:
        """Write ``out[missing]`` for ``ids[missing]``; ids are whatever was asked for, -1 and beyond included."""


@dataclass(frozen=True, eq=False)
class Zero:
    """A row of zeros, which is what the kernels write anyway."""

    kind: ClassVar[str] = "zero"
    header: ClassVar[dict[str, Any]] = {}

    def tensors(self) -> Tensors:
        """Nothing."""
        return {}

    @classmethod
    def from_tensors(cls, header: dict[str, Any], tensors: Tensors) -> Self:
        """Nothing to read."""
        return cls()

    def fill(self, ids: Ids, missing: Ids, out: Floats) -> None:
        """Nothing to do."""


@dataclass(frozen=True, eq=False)
class Mean:
    """One vector for all, float32 (D,)."""

    vector: Floats
    kind: ClassVar[str] = "mean"
    header: ClassVar[dict[str, Any]] = {}

    def tensors(self) -> Tensors:
        """The vector."""
        return {"fallback.vector": self.vector}

    @classmethod
    def from_tensors(cls, header: dict[str, Any], tensors: Tensors) -> Self:
        """Wrap the vector."""
        return cls(tensors["fallback.vector"])

    def fill(self, ids: Ids, missing: Ids, out: Floats) -> None:
        """The vector, everywhere."""
        out[missing] = self.vector


FALLBACKS: dict[str, type[Zero] | type[Mean]] = {fallback.kind: fallback for fallback in (Zero, Mean)}


def mean_of(data: Floats, columns: npt.NDArray[np.integer], rows: int, dim: int) -> Mean:
    """The mean of the stored rows, given their numbers."""
    if rows == 0:
        raise DataError("There are no stored rows to take a mean of; use the zero fallback.")
    total = np.bincount(columns, weights=data, minlength=dim)
    return Mean(frozen((total / rows).astype(np.float32)))

"""MF's tables in training: whole, or packed to what lives."""

from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.preprocessing import normalize

from recsparse.kernels import sgd as kernels
from recsparse.kernels.number import columns_of
from recsparse.kernels.packed_sgd import read_rows
from recsparse.kernels.refine import set_pattern
from recsparse.kernels.regroup import regroup
from recsparse.kernels.sgd import Side
from recsparse.models.checkpoint import Arrays
from recsparse.tables.bits import bit_buffer, frozen
from recsparse.tables.mask import Mask

Floats = npt.NDArray[np.float32]

FEW = 1 / 16
"""The density up to which column numbers of 16 bits are held, for they are smaller than a bitmap, and quicker."""

_LEAST, _PIECES = 1 << 14, 32


class Drawn:
    """A table (R, D) of normal numbers that is drawn anew, some rows at a time, whenever it is looked at.

    Args:
        shape: (R, D).
        std: of the numbers.
        rng: left where it is after drawing all of them in one call, which gives the same numbers.
        unit: whether rows are brought to length 1.
    """

    def __init__(self, shape: tuple[int, int], std: float, rng: np.random.Generator, *, unit: bool = False) -> None:
        self.shape = shape
        self._std, self._unit, self._kind = std, unit, type(rng.bit_generator)
        self._step = piece_rows(shape)
        self._states: list[Any] = []
        for start in range(0, shape[0], self._step):
            self._states.append(deepcopy(rng.bit_generator.state))
            rng.standard_normal((min(self._step, shape[0] - start), shape[1]), dtype=np.float32)

    def rows(self, start: int, stop: int) -> Floats:
        """Rows ``start`` to ``stop``."""
        out = np.empty((stop - start, self.shape[1]), dtype=np.float32)
        for piece in range(start // self._step, -(-stop // self._step)):
            first, end = piece * self._step, min((piece + 1) * self._step, self.shape[0])
            rng = np.random.Generator(self._kind())
            rng.bit_generator.state = self._states[piece]
            drawn = self._std * rng.standard_normal((end - first, self.shape[1]), dtype=np.float32)
            low, high = max(start, first), min(stop, end)
            out[low - start : high - start] = drawn[low - first : high - first]
        return normalize(out, copy=False) if self._unit else out

    def side(self, optimiser: int, kept: Mask | None = None) -> Side:
        """The table to begin training with, and the optimiser's state: whole, or packed to what is kept."""
        rows = self.shape[0]
        steps = np.zeros(rows if optimiser == kernels.ADAM else 0, dtype=np.int64)
        columns = self.shape[1] if kept is None else kept.kept
        held = rows if kept is None else 1
        values = aligned(held, columns)
        first, second = (
            aligned(held if optimiser in which else 0, columns)
            for which in ((kernels.ADAGRAD, kernels.ADAM), (kernels.ADAM,))
        )
        done = 0
        for start in range(0, rows, self._step):
            stop = min(start + self._step, rows)
            piece = self.rows(start, stop)
            if kept is None:
                values[start:stop] = piece
            else:
                living = piece[kept.dense_rows(start, stop)]
                values[0, done : done + len(living)] = living
                done += len(living)
        return Side(values, first, second, steps, **({} if kept is None else _places(kept)))


def piece_rows(shape: tuple[int, int], multiple: int = 1) -> int:
    """The rows of a table that are looked at together: a 32nd of it, or 16,384 entries if that is more."""
    entries = max(_LEAST, shape[0] * shape[1] // _PIECES)
    return max(1, entries // shape[1] // multiple) * multiple


def confine(side: Side, kept: Mask | None, values: Floats | None = None) -> Side:
    """Hold the values, and the optimiser's state, where ``kept``, everywhere for None; what is new there is zero.

    Args:
        side: a packed one is used up: where as many entries live as before, they move within its arrays.
        kept: of (R, D).
        values: (R, D), to take in place of the side's own.
    """
    if kept is None:
        own = whole(side) if values is None else copied(values)
        return Side(own, whole(side, side.first), whole(side, side.second), side.steps, side.prior)
    elements, old = kept.to_elements(), living(side) if side.dim else None

    def moved(table: Floats) -> Floats:
        if not len(table):
            return table
        if old is None:
            return _living_of(table, elements)
        out = table if table.size == elements.kept else np.empty((1, elements.kept), dtype=np.float32)
        regroup(table[0], old.bits, elements.bits, elements.n_tiles, out[0])
        return out

    own = moved(side.values) if values is None else _living_of(values, elements)
    return Side(own, moved(side.first), moved(side.second), side.steps, side.prior, **_places(elements))


def rows_of(side: Side, start: int, stop: int, table: Floats | None = None) -> Floats:
    """Rows ``start`` to ``stop`` of the side's values, or of another table of its shape, with zeros where none live."""
    table = side.values if table is None else table
    if not side.dim:
        return table[start:stop]
    out = aligned(stop - start, side.dim)
    read_rows(table.ravel(), side.ptr, side.columns, side.bits, side.dim, start, out)
    return out


def whole(side: Side, table: Floats | None = None) -> Floats:
    """All rows: a whole side's own table, or a new one; of a table without rows, none."""
    table = side.values if table is None else table
    return rows_of(side, 0, len(side.ptr) - 1, table) if side.dim and len(table) else table


def sparse(side: Side) -> Floats | sp.csr_array:
    """The side's values: a packed one's as a CSR (R, D) over the same numbers, whose entries are those that live."""
    if not side.dim:
        return side.values
    columns = side.columns.astype(np.int32) if len(side.columns) else living(side).columns()
    return sp.csr_array((side.values[0], columns, side.ptr), (len(side.ptr) - 1, side.dim))


def numbers_of(side: Side, *, unit: bool = False) -> Floats:
    """The values of a whole side, (R, D), or of a packed one's living entries, (N,); with rows of length 1 if ``unit``.

    A recipe may just have shortened rows that training keeps at that length.
    """
    if unit:
        rows = normalize(sparse(side))
        numbers: Floats = rows.data if side.dim else rows
        return numbers
    return side.values[0] if side.dim else side.values


def shape_of(side: Side) -> tuple[int, int]:
    """(R, D)."""
    rows, dim = side.values.shape
    return (len(side.ptr) - 1, side.dim) if side.dim else (rows, dim)


def living(side: Side) -> Mask:
    """What of a packed side lives."""
    shape = shape_of(side)
    bits = side.bits
    if not len(bits):
        bits = bit_buffer(shape[0] * shape[1])
        set_pattern(side.ptr, side.columns, side.dim, bits)
    return Mask(shape, (1, 1), frozen(bits))


def pack_side(name: str, side: Side) -> Arrays:
    """The side's arrays by name, for a checkpoint."""
    return {f"{name}.{field}": np.ascontiguousarray(array) for field, array in zip(side._fields, side, strict=True)}


def unpack_side(name: str, arrays: Arrays) -> Side:
    """What :func:`pack_side` gave, aligned again."""
    found: dict[str, Any] = {field: arrays[f"{name}.{field}"] for field in Side._fields}
    tables = {field: copied(found[field]) for field in ("values", "first", "second")}
    return Side(**(found | tables | {"bits": frozen(found["bits"]), "dim": int(found["dim"][0])}))


def copied(table: Floats) -> Floats:
    """An aligned copy."""
    copy = aligned(*table.shape)
    copy[:] = table
    return copy


def aligned(rows: int, dim: int) -> Floats:
    """Zeros whose first row starts on a cache line."""
    buffer = np.zeros(rows * dim + 16, dtype=np.float32)
    first = (-buffer.ctypes.data % 64) // 4
    return buffer[first : first + rows * dim].reshape(rows, dim)


def _places(kept: Mask) -> dict[str, Any]:
    """Where the entries of a packed side live."""
    elements = kept.to_elements()
    ptr = np.concatenate([[0], np.cumsum(elements.row_counts)])
    if elements.density > FEW:
        return {"ptr": ptr, "bits": elements.bits, "dim": elements.shape[1]}
    columns = np.empty(elements.kept, dtype=np.uint16)
    columns_of(elements.bits, elements.shape[1], np.arange(len(ptr) - 1), ptr, columns)
    return {"ptr": ptr, "columns": columns, "dim": elements.shape[1]}


def _living_of(table: Floats, elements: Mask) -> Floats:
    """The entries of a whole table that live, (1, N)."""
    out = aligned(1, elements.kept)
    done = 0
    for start, stop in elements.chunks():
        found = table[start:stop][elements.dense_rows(start, stop)]
        out[0, done : done + len(found)] = found
        done += len(found)
    return out

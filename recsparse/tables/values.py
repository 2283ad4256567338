"""Value types: how the numbers of a table are stored, and to what they are rounded.

===========  =======  ===============================================================================
value type   bits     rounding
===========  =======  ===============================================================================
fp32         32       none
fp16         16       nearest float16 (11 bits of mantissa, up to 65,504)
bf16         16       nearest bfloat16 (8 bits of mantissa, the range of fp32)
int8..int2   8 to 2   ``code * scale``, code from ``-2^(b-1)`` to ``2^(b-1) - 1``, ties to even
===========  =======  ===============================================================================

A *row* scale takes one byte: a sign and one of 128 neighbours on the lattice ``2 ** (e / 8)``. The sign lets the
longer end of the integers point where the row needs it. Of the scales near the one that just spans the row, the one
of least squared error is taken (some clipping pays when bits are few). So a row's error obeys

``sqrt(mean(error ** 2)) <= max(1.1 * max|row|, 1.2 * 2^-15 * max|table|) / (2^(b-1) - 1) / 2``,

and rounding what is rounded already changes nothing (but for rows some 10,000 times smaller than the largest). That is
so up to float32's largest number, and down to 2^-126, the smallest scale: an error of 2^-127 is always possible.
A *column* scale is a float32 for the whole table.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from recsparse.errors import ConfigError, DataError
from recsparse.kernels import decode as kernels
from recsparse.parallel import for_ranges
from recsparse.tables.arrays import as_array
from recsparse.tables.bits import Bytes, buffer_bytes, copy_bits, frozen, pack_integers, stored

Floats = npt.NDArray[np.float32]
Scales = Literal["row", "column"]

KINDS = {
    "fp32": kernels.FP32, "fp16": kernels.FP16, "bf16": kernels.BF16,
    "int8": 8, "int6": 6, "int5": 5, "int4": 4, "int3": 3, "int2": 2,
}  # fmt: skip
"""The value types and how kernels know them; for integers it is the number of bits."""

NO_BYTES = frozen(np.zeros(0, dtype=np.uint8))
NO_FLOATS = frozen(np.zeros(0, dtype=np.float32))
NO_EXPONENT = frozen(np.zeros(0, dtype=np.int16))
MAX_FP16 = 65504.0
BF16_INFINITY = float(np.uint32(0x7F7F8000).view(np.float32))
"""The first float32 that bfloat16 would round to infinity, 3.396e38."""


@dataclass(frozen=True, eq=False)
class Values:
    """Numbers in storage: ``n`` of them, row after row.

    Attributes:
        value_type: a key of :data:`KINDS`.
        n: how many numbers.
        codes: float32 or float16 (n,), bfloat16 as uint16 (n,), or a bit buffer of integers.
        row_scales: one byte a row, empty unless integers with row scales.
        exponent: int16 (1,) with row scales: place 0 of their lattice is ``2 ** (exponent / 8)``; else empty.
        column_scales: float32 (D,), empty unless integers with column scales.
    """

    value_type: str
    n: int
    codes: npt.NDArray[Any]
    row_scales: Bytes
    exponent: npt.NDArray[np.int16]
    column_scales: Floats

    @cached_property
    def _code_bytes(self) -> Bytes:
        return frozen(self.codes.view(np.uint8))

    @cached_property
    def lattice(self) -> Floats:
        """What each scale byte stands for, float32 (256,)."""
        return scale_lattice(int(self.exponent[0])) if len(self.exponent) else NO_FLOATS

    @property
    def scales(self) -> Floats:
        """The row scales, float32 (rows,)."""
        scales: Floats = self.lattice[self.row_scales]
        return scales

    @property
    def scaled_by(self) -> Scales:
        """By what integers are scaled; "row" of floats too, which are not."""
        return "column" if len(self.column_scales) else "row"

    @classmethod
    def from_tensors(cls, value_type: str, n: int, tensors: dict[str, npt.NDArray[Any]], rows: int, dim: int) -> Self:
        """The inverse of :meth:`tensors`, for so many stored rows."""
        dtypes = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16}
        length = n if value_type in dtypes else code_bytes(value_type, n)
        codes = stored(tensors, "values.codes", dtypes.get(value_type, np.uint8), length) if n else NO_BYTES
        row_scales, exponent, column_scales = NO_BYTES, NO_EXPONENT, NO_FLOATS
        if "scales.column" in tensors:
            column_scales = stored(tensors, "scales.column", np.float32, dim)
        elif is_integer(value_type):
            exponent = stored(tensors, "scales.exponent", np.int16, 1)
            row_scales = stored(tensors, "scales.row", np.uint8, rows) if rows else NO_BYTES
        return cls(value_type, n, codes, row_scales, exponent, column_scales)

    def slice_numbers(self, start: int, stop: int, first_row: int, last_row: int) -> "Values":
        """Numbers ``start`` to ``stop``, which are those of stored rows ``first_row`` to ``last_row``."""
        if is_integer(self.value_type):
            width = KINDS[self.value_type]
            codes = copy_bits(self.codes, start * width, (stop - start) * width) if stop > start else NO_BYTES
        else:
            codes = self.codes[start:stop]
        row_scales = self.row_scales[first_row:last_row] if len(self.row_scales) else self.row_scales
        return Values(self.value_type, stop - start, codes, row_scales, self.exponent, self.column_scales)

    def kernel_arguments(self) -> tuple[Any, ...]:
        """What every gather kernel takes: codes, kind, row scales, their lattice, column scales."""
        return self._code_bytes, KINDS[self.value_type], self.row_scales, self.lattice, self.column_scales

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What is stored, by name, without what is empty."""
        parts: dict[str, npt.NDArray[Any]] = {
            "values.codes": self.codes, "scales.row": self.row_scales, "scales.exponent": self.exponent,
            "scales.column": self.column_scales,
        }  # fmt: skip
        return {name: part for name, part in parts.items() if len(part)}


def with_scales(
    codes: Floats, value_type: str, row_scales: Bytes, exponent: npt.NDArray[np.int16], column_scales: Floats
) -> Values:
    """Store codes that are rounded already, as :func:`decode_codes` gives them, beside the scales they go with."""
    if is_integer(value_type):
        stored = pack_integers(codes.astype(np.int8), KINDS[value_type]) if len(codes) else NO_BYTES
    else:
        stored = _float_codes(codes, value_type)
    return Values(value_type, len(codes), frozen(stored), frozen(row_scales), exponent, column_scales)


def scale_bytes(scales: Floats, used: npt.NDArray[np.bool_]) -> tuple[Bytes, npt.NDArray[np.int16]]:
    """The bytes and the exponent that :attr:`Values.scales` makes these scales of, where they are ``used``.

    Raises:
        DataError: they are not of one lattice.
    """
    places = np.rint(kernels.SCALE_STEPS * np.log2(np.abs(scales[used]))).astype(np.int64)
    exponent = max((int(places.max()) if len(places) else 0) - kernels.SCALE_PLACES + 1, -126 * kernels.SCALE_STEPS)
    if len(places) and places.min() < exponent:
        smallest, largest = np.abs(scales[used]).min(), np.abs(scales[used]).max()
        raise DataError(f"Row scales from {smallest} to {largest} do not fit one table; convert the parts to bf16.")
    codes = np.zeros(len(scales), dtype=np.uint8)
    codes[used] = places - exponent + np.where(scales[used] < 0, kernels.SCALE_PLACES, 0)
    return frozen(codes), frozen(np.array([exponent], dtype=np.int16))


def scale_lattice(exponent: int) -> Floats:
    """The 256 scales whose smallest magnitude is ``2 ** (exponent / 8)``, float32; negative from 128 on."""
    with np.errstate(over="ignore"):  # of a damaged file that was not verified
        places = np.exp2((exponent + np.arange(kernels.SCALE_PLACES)) / kernels.SCALE_STEPS).astype(np.float32)
    return frozen(np.concatenate([places, -places]))


def code_bytes(value_type: str, n: int) -> int:
    """Bytes of ``n`` codes, without scales."""
    kind = KINDS[value_type]
    if is_integer(value_type):
        return buffer_bytes(n * kind) if n else 0
    return n * (4 if kind == kernels.FP32 else 2)


def is_integer(value_type: str) -> bool:
    """Whether it is stored as integers times scales."""
    return KINDS[value_type] <= 8


def check_value_type(value_type: str) -> None:
    """Refuse an unknown value type."""
    if value_type not in KINDS:
        raise ConfigError(f"The value type is {value_type!r}; it must be one of {list(KINDS)}.")


def encode(
    data: Floats, starts: npt.NDArray[np.int64], columns: Any, dim: int, *, value_type: str, scales: Scales,
    n_jobs: int | None = None,
) -> Values:  # fmt: skip
    """Store the ragged rows ``data[starts[r]:starts[r + 1]]``.

    Args:
        data: float32 (n,), finite.
        starts: int64 (rows + 1,).
        columns: a function giving the column of each number, int (n,); called for column scales only.
        dim: the number of columns.
        value_type: a key of :data:`KINDS`.
        scales: "row" or "column"; for integers only.
        n_jobs: threads.

    Raises:
        ConfigError: an unknown value type or kind of scale.
        DataError: a number is too large for fp16 or bf16.
    """
    check_value_type(value_type)
    none = (NO_BYTES, NO_EXPONENT, NO_FLOATS)
    if not is_integer(value_type):
        return Values(value_type, len(data), frozen(_float_codes(data, value_type)), *none)
    width = KINDS[value_type]
    if scales == "column":
        codes, column_scales = _round_columns(data, columns(), dim, width)
        packed = frozen(pack_integers(codes, width)) if len(data) else NO_BYTES
        return Values(value_type, len(data), packed, none[0], none[1], frozen(column_scales))
    if scales != "row":
        raise ConfigError(f"scales is {scales!r}; it must be 'row' or 'column'.")
    exponent = np.array([_lattice_exponent(data, width)], dtype=np.int16)
    codes = np.empty(len(data), dtype=np.int8)
    row_scales = np.empty(len(starts) - 1, dtype=np.uint8)
    lattice = scale_lattice(int(exponent[0]))

    def work(first: int, last: int) -> None:
        kernels.round_rows(data, starts, first, last, width, lattice, row_scales, codes)

    for_ranges(work, len(row_scales), step=4096, n_jobs=n_jobs)
    packed = frozen(pack_integers(codes, width)) if len(data) else NO_BYTES
    return Values(value_type, len(data), packed, frozen(row_scales), frozen(exponent), none[2])


def quantise(
    values: npt.ArrayLike, value_type: str, *, mask: npt.NDArray[np.bool_] | None = None, scales: Scales = "row"
) -> Floats:
    """Round an array to exactly what a packed table of it would return, for quantisation-aware training.

    Args:
        values: (R, D), finite.
        value_type: "fp32", "fp16", "bf16", "int8", "int6", ... "int2".
        mask: bool (R, D), the entries that are kept; those that are not become 0 and have no say in the scales.
            All by default.
        scales: one "row" scale a row or one "column" scale a column, for integers.

    Returns:
        float32 (R, D). Rounding it again changes nothing.

    Raises:
        ConfigError: an unknown value type.
        DataError: a value is not finite, or too large for fp16 or bf16.

    Example:
        >>> quantise([[0.0, 1.0, 2.0, 3.2]], "int4").round(3)
        array([[0.   , 0.917, 1.834, 3.21 ]], dtype=float32)
    """
    dense = to_float32(as_array(values))
    kept = np.ones(dense.shape, dtype=np.bool_) if mask is None else as_array(mask)
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1, dtype=np.int64))])
    rounded = encode(
        dense[kept], starts, lambda: np.nonzero(kept)[1], dense.shape[1], value_type=value_type, scales=scales
    )
    result = np.zeros_like(dense)
    factor = np.ones(1, dtype=np.float32)
    if len(rounded.row_scales):
        factor = np.repeat(rounded.scales, np.diff(starts))
    elif len(rounded.column_scales):
        factor = rounded.column_scales[np.nonzero(kept)[1]]
    result[kept] = decode_codes(rounded) * factor
    return result


def decode_codes(values: Values) -> Floats:
    """The numbers before their scales, float32 (n,)."""
    out = np.empty(values.n, dtype=np.float32)
    codes, kind, *_ = values.kernel_arguments()
    kernels.decode_flat(codes, kind, values.n, out)
    return out


def to_float32(values: npt.NDArray[Any]) -> Floats:
    """The values as float32, finite or refused."""
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused with its place
        single = values.astype(np.float32, copy=False)
    check_finite(single)
    return single


def check_finite(values: npt.NDArray[np.floating], what: str = "value") -> None:
    """Refuse NaN and infinite values, saying what they are and where the first one is."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, 1 << 22):
        block = flat[start : start + (1 << 22)]
        bad = np.flatnonzero(~np.isfinite(block))
        if len(bad):
            where = tuple(int(i) for i in np.unravel_index(start + bad[0], values.shape))
            raise DataError(f"The {what} at {where} is {block[bad[0]]}; a table holds finite numbers only.")


def _float_codes(data: Floats, value_type: str) -> npt.NDArray[Any]:
    if value_type == "fp32":
        return data
    largest = float(np.abs(data).max(initial=0.0))
    if value_type == "fp16":
        if largest > MAX_FP16:
            raise DataError(f"The value {largest} does not fit fp16 (up to {MAX_FP16}); use bf16, fp32 or int8.")
        return data.astype(np.float16)
    if largest >= BF16_INFINITY:
        raise DataError(f"The value {largest} does not fit bf16 (below {BF16_INFINITY:.4g}); use fp32 or int8.")
    bits = data.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # nearest, ties to even


def _lattice_exponent(data: Floats, width: int) -> int:
    largest = float(np.abs(data).max(initial=0.0))
    if largest == 0:
        return 0
    span = largest / (2 ** (width - 1) - 1)
    top = int(np.ceil(kernels.SCALE_STEPS * np.log2(2 * span)))
    top = min(top, 128 * kernels.SCALE_STEPS - 1)  # float32 has no more
    return max(top - kernels.SCALE_PLACES + 1, -126 * kernels.SCALE_STEPS)


def _round_columns(
    data: Floats, columns: npt.NDArray[np.int64], dim: int, width: int
) -> tuple[npt.NDArray[np.int8], Floats]:
    """Round with one scale a column: of 15 from a third to the span, with both signs, that of the least error.

    The first of the best is taken. The cost is one pass that tries all of them.
    """
    low, high = -(2 ** (width - 1)), 2 ** (width - 1) - 1
    span = np.zeros(dim, dtype=np.float32)
    np.maximum.at(span, columns, np.abs(data))
    span = np.where(span > 0, np.maximum(span / high, np.finfo(np.float32).tiny), 1).astype(np.float32)
    ratios = np.outer(np.linspace(1.0, 0.3, 15), (1, -1)).reshape(-1).astype(np.float32)
    tried = span[:, None] * ratios
    errors = kernels.column_errors(data, columns, width, tried)
    scale = np.take_along_axis(tried, errors.argmin(axis=1)[:, None], axis=1)[:, 0]
    return np.clip(np.rint(data / scale[columns]), low, high).astype(np.int8), scale

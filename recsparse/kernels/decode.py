"""Numbers as they are stored -> float32, and the rounding that stores them.

A *kind* says how: 32 is float32, 16 float16, 15 bfloat16, and 2 to 8 are integers of so many bits (two's complement)
times a scale. Row scales are one byte each: a sign and a place on the lattice ``2 ** (e / 8)``.
"""

import math

import numba as nb
import numpy as np

from recsparse.kernels.bits import load16, load32, load64, write
from recsparse.kernels.expansion import expand_bfloats, expand_bytes, expand_halves, expand_singles
from recsparse.kernels.lanes import (
    LANES,
    write_bfloats,
    write_bytes,
    write_halves,
    write_integers,
    write_singles,
)

FP32, FP16, BF16, INT8 = 32, 16, 15, 8
ONES = 0
"""No numbers at all: every entry reads as 1, which shows a support as a pattern."""
SCALE_STEPS = 8
"""Row scales an octave: neighbours are 9 % apart, so the best one is missed by at most 4.5 %."""

SCALE_PLACES = 128
"""Magnitudes a scale byte can say: 16 octaves; its highest bit is the sign."""

SLACK = 64
"""Room to leave after a row for what :func:`decode` writes, and for what a damaged mask may read."""


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def code_bits(kind):  # type: ignore[no-untyped-def]
    """Bits of a number in storage."""
    return np.int64(16) if kind == BF16 else np.int64(kind)


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def bfloat_to_single(word):  # type: ignore[no-untyped-def]
    """A bfloat16, given as its bits: the upper half of a float32."""
    return np.uint32(word << np.uint32(16)).view(np.float32)


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def half_to_single(word):  # type: ignore[no-untyped-def]
    """A finite float16, given as its bits: shift the fields into place, then mend the exponent by a product."""
    magnitude = np.uint32((word & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32) * np.float32(2.0**112)
    return np.float32(-magnitude) if word & np.uint32(0x8000) else np.float32(magnitude)


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def decode(codes, kind, start, n, n_numbers, factor, out, to):  # type: ignore[no-untyped-def]
    """Write numbers ``start`` to ``start + n`` of ``n_numbers`` in ``codes``, times ``factor``, to ``out[to:]``.

    May write up to ``LANES - 1`` numbers more where ``out`` has room for them: whole vectors only, most of the time.
    """
    whole = (n + LANES - 1) & ~np.int64(LANES - 1)
    if kind == ONES:
        whole = np.int64(0)
    elif start + whole > n_numbers or to + whole > len(out):
        whole = n & ~np.int64(LANES - 1)
    for done in range(0, whole, LANES):
        decode_lanes(codes, kind, start + done, factor, out, to + done)
    for done in range(whole, n):
        write(out, to + done, decode_one(codes, kind, start + done, factor))


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def decode_lanes(codes, kind, start, factor, out, to):  # type: ignore[no-untyped-def]
    """:func:`decode` for exactly ``LANES`` numbers."""
    if kind == FP32:
        write_singles(codes, start * 4, factor, out, to)
    elif kind == INT8:
        write_bytes(codes, start, factor, out, to)
    elif kind == FP16:
        write_halves(codes, start * 2, factor, out, to)
    elif kind == BF16:
        write_bfloats(codes, start * 2, factor, out, to)
    else:
        write_integers(codes, start * kind, kind, factor, out, to)


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def expand(codes, kind, start, factor, mask, out, to):  # type: ignore[no-untyped-def]
    """Spread the numbers from ``start`` over the ones of a ``LANES`` bit mask, zeros elsewhere; not of packed ones."""
    if kind == FP32:
        expand_singles(codes, start, factor, mask, out, to)
    elif kind == INT8:
        expand_bytes(codes, start, factor, mask, out, to)
    elif kind == FP16:
        expand_halves(codes, start, factor, mask, out, to)
    else:
        expand_bfloats(codes, start, factor, mask, out, to)


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def decode_one(codes, kind, at, factor):  # type: ignore[no-untyped-def]
    """Number ``at``, times ``factor``."""
    if kind == ONES:
        return np.float32(1)
    if kind == FP32:
        return load32(codes, at * 4)
    if kind == FP16:
        return half_to_single(np.uint32(load16(codes, at * 2)))
    if kind == BF16:
        return bfloat_to_single(np.uint32(load16(codes, at * 2)))
    up = np.int64(64 - kind)
    word = np.int64(load64(codes, (at * kind) >> 3) >> np.uint64((at * kind) & 7))
    return np.float32(np.int32((word << up) >> up)) * factor


@nb.njit(nogil=True, cache=True)
def decode_flat(codes, kind, n, out):  # type: ignore[no-untyped-def]
    """All ``n`` numbers before their scales."""
    decode(codes, kind, 0, n, n, np.float32(1), out, 0)


@nb.njit(nogil=True, cache=True)
def round_rows(data, starts, first, last, width, scales, row_scales, codes):  # type: ignore[no-untyped-def]
    """Round rows ``first`` to ``last`` of ragged ``data`` to ``width`` bits, each with its best scale.

    Tries every scale of the lattice from a third of the one that spans the row to twice it, with both signs (the
    integers reach one further down than up), and keeps the least squared error; ties go to the larger scale. Errors are
    squared as multiples of a power of two near the row's largest number, so that none overflows or vanishes. A scale
    by which a number would become infinite has an infinite error.
    """
    low = np.float32(-(1 << (width - 1)))
    high = np.float32((1 << (width - 1)) - 1)
    for row in range(first, last):
        start, stop = starts[row], starts[row + 1]
        top = np.float32(0)
        for i in range(start, stop):
            top = max(top, abs(data[i]))
        row_scales[row] = 0
        if top == 0:
            codes[start:stop] = 0
            continue
        span = top / high
        _, exponent = math.frexp(top)
        unit = np.float32(math.ldexp(1.0, -min(max(exponent, -126), 126)))
        best = np.inf
        chosen = np.float32(0)
        for place in range(SCALE_PLACES - 1, -1, -1):
            if place > 0 and scales[place] > span * 2.2:
                continue
            if best < np.inf and scales[place] < span * 0.3:
                break
            for sign in range(2):
                scale = scales[place + sign * SCALE_PLACES]
                inverse = np.float32(1) / scale
                error = 0.0
                for i in range(start, stop):
                    rounded = min(max(np.rint(data[i] * inverse), low), high)
                    gap = (data[i] - rounded * scale) * unit
                    error += gap * gap
                if error < best:
                    best = error
                    chosen = scale
                    row_scales[row] = place + sign * SCALE_PLACES
        for i in range(start, stop):
            codes[i] = np.int8(min(max(np.rint(data[i] * (np.float32(1) / chosen)), low), high))


@nb.njit(nogil=True, cache=True, error_model="numpy")
def column_errors(data, columns, width, scales):  # type: ignore[no-untyped-def]
    """Squared error of each column's numbers when rounded to ``width`` bits by each of its ``scales`` (D, n)."""
    low = np.float32(-(1 << (width - 1)))
    high = np.float32((1 << (width - 1)) - 1)
    errors = np.zeros(scales.shape)
    for i in range(len(data)):
        number, tried, error = data[i], scales[columns[i]], errors[columns[i]]
        for j in range(len(tried)):
            gap = number - min(max(np.rint(number / tried[j]), low), high) * tried[j]
            error[j] += np.float64(gap) * np.float64(gap)
    return errors

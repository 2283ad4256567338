"""Numbers as they are stored -> float32, and the rounding that stores them.

A *kind* says how: 32 is float32, 16 float16, 15 bfloat16, and 2 to 8 are integers of so many bits (two's complement)
times a scale. Row scales are one byte each: a sign and a place on the lattice ``2 ** (e / 8)``.
"""

import numba as nb
import numpy as np

from recsparse.kernels.bits import load16, load32, load64

FP32, FP16, BF16, INT8 = 32, 16, 15, 8
SCALE_STEPS = 8
"""Row scales an octave: neighbours are 9 % apart, so the best one is missed by at most 4.5 %."""

SCALE_PLACES = 128
"""Magnitudes a scale byte can say: 16 octaves; its highest bit is the sign."""

SLACK = 64
"""Entries :func:`decode` may write past the end of what it was asked for."""


@nb.njit(forceinline=True, cache=True)
def half_to_single(word):  # type: ignore[no-untyped-def]
    """A finite float16, given as its bits: shift the fields into place, then mend the exponent by a product."""
    magnitude = np.uint32((word & np.uint32(0x7FFF)) << np.uint32(13)).view(np.float32) * np.float32(2.0**112)
    return np.float32(-magnitude) if word & np.uint32(0x8000) else np.float32(magnitude)


@nb.njit(forceinline=True, cache=True)
def decode(codes, kind, start, n, factor, out, to):  # type: ignore[no-untyped-def]
    """Write numbers ``start`` to ``start + n`` of ``codes``, times ``factor``, to ``out[to:]``.

    May write up to ``SLACK`` entries more where ``out`` has room for them.
    """
    if kind == FP32:
        for j in range(n):
            out[to + j] = load32(codes, (start + j) * 4)
    elif kind == INT8:
        for j in range(n):
            out[to + j] = np.float32(np.int8(codes[start + j])) * factor
    elif kind == FP16:
        for j in range(n):
            out[to + j] = half_to_single(load16(codes, (start + j) * 2))
    elif kind == BF16:
        for j in range(n):
            out[to + j] = np.uint32(load16(codes, (start + j) * 2) << np.uint32(16)).view(np.float32)
    else:
        decode_integers(codes, kind, start, n, factor, out, to)


@nb.njit(forceinline=True, cache=True)
def decode_integers(codes, width, start, n, factor, out, to):  # type: ignore[no-untyped-def]
    """:func:`decode` for integers of 2 to 7 bits, as many at once as a word surely holds."""
    per_word = 56 // width
    up = np.int64(64 - width)
    done = 0
    while done < n:
        at = (start + done) * width
        word = np.int64(load64(codes, at >> 3) >> np.uint64(at & 7))
        for j in range(min(per_word, len(out) - to - done)):
            out[to + done + j] = np.float32(np.int32((word << (up - j * width)) >> up)) * factor
        done += per_word


@nb.njit(nogil=True, cache=True)
def round_rows(data, starts, first, last, width, scales, row_scales, codes):  # type: ignore[no-untyped-def]
    """Round rows ``first`` to ``last`` of ragged ``data`` to ``width`` bits, each with its best scale.

    Tries every scale of the lattice from a third of the one that spans the row to twice it, with both signs (the
    integers reach one further down than up), and keeps the least squared error; ties go to the larger scale.
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
                    gap = data[i] - rounded * scale
                    error += gap * gap
                if error < best:
                    best = error
                    chosen = scale
                    row_scales[row] = place + sign * SCALE_PLACES
        for i in range(start, stop):
            codes[i] = np.int8(min(max(np.rint(data[i] * (np.float32(1) / chosen)), low), high))

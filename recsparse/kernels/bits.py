"""Bits in byte buffers: unaligned words, packed integers, ranks, and the vector expansion of sparse rows.

A *bit buffer* is a uint8 array whose bit ``i`` is ``buffer[i >> 3] >> (i & 7) & 1``, followed by :data:`PADDING`
bytes, so that a 64-bit word can be read from any bit of it.
"""

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

PADDING = 8
"""Bytes after the last bit of a bit buffer."""

RANK_BITS = 512
"""Bits between two counters of a rank structure: 32 / 512 = 0.0625 bits of counters a bit."""

LANES = 16
"""Entries that one call of :func:`expand` writes."""


def _data(context: Any, builder: Any, array_type: Any, value: Any) -> Any:
    return cgutils.create_struct_proxy(array_type)(context, builder, value).data


@intrinsic
def load64(typing_context, buffer, at):  # type: ignore[no-untyped-def]
    """The 64-bit word at byte ``at`` of a uint8 array; NumPy views cannot read unaligned words."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = builder.gep(_data(context, builder, signature.args[0], args[0]), [args[1]])
        word = builder.load(builder.bitcast(pointer, ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(buffer, types.int64), codegen


@intrinsic
def load32(typing_context, buffer, at):  # type: ignore[no-untyped-def]
    """The float32 at byte ``at`` of a uint8 array."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = builder.gep(_data(context, builder, signature.args[0], args[0]), [args[1]])
        word = builder.load(builder.bitcast(pointer, ir.FloatType().as_pointer()))
        word.align = 1
        return word

    return types.float32(buffer, types.int64), codegen


@intrinsic
def load16(typing_context, buffer, at):  # type: ignore[no-untyped-def]
    """The 16-bit word at byte ``at`` of a uint8 array."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = builder.gep(_data(context, builder, signature.args[0], args[0]), [args[1]])
        word = builder.load(builder.bitcast(pointer, ir.IntType(16).as_pointer()))
        word.align = 1
        return builder.zext(word, ir.IntType(32))

    return types.uint32(buffer, types.int64), codegen


@intrinsic
def popcount(typing_context, word):  # type: ignore[no-untyped-def]
    """The number of ones in a uint64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.ctpop(args[0])

    return types.int64(types.uint64), codegen


@intrinsic
def trailing_zeros(typing_context, word):  # type: ignore[no-untyped-def]
    """The place of the lowest one in a uint64."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


@intrinsic
def expand(typing_context, source, start, mask, out, to):  # type: ignore[no-untyped-def]
    """Spread ``source[start:]`` over the ones of the 16-bit ``mask`` into ``out[to:to + 16]``, zeros elsewhere.

    One instruction where the processor has it (AVX-512), a short loop elsewhere; reads only as many as it spreads.
    """
    signature = types.void(source, types.int64, types.uint64, out, types.int64)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        source, start, mask, out, to = args
        single = ir.FloatType()
        vector = ir.VectorType(single, LANES)
        chosen = ir.VectorType(ir.IntType(1), LANES)
        source = builder.gep(_data(context, builder, signature.args[0], source), [start])
        out = builder.gep(_data(context, builder, signature.args[3], out), [to])
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector, [single.as_pointer(), chosen, vector]),
            f"llvm.masked.expandload.v{LANES}f32",
        )
        bits = builder.bitcast(builder.trunc(mask, ir.IntType(LANES)), chosen)
        spread = builder.call(function, [source, bits, ir.Constant(vector, [ir.Constant(single, 0.0)] * LANES)])
        store = builder.store(spread, builder.bitcast(out, vector.as_pointer()))
        store.align = 4
        return context.get_dummy_value()

    return signature, codegen


@nb.njit(forceinline=True, cache=True)
def read_bits(buffer, at, width):  # type: ignore[no-untyped-def]
    """The ``width`` <= 57 bits from bit ``at``, as an uint64."""
    return (load64(buffer, at >> 3) >> np.uint64(at & 7)) & ((np.uint64(1) << np.uint64(width)) - np.uint64(1))


@nb.njit(forceinline=True, cache=True)
def rank(buffer, counters, at):  # type: ignore[no-untyped-def]
    """The number of ones before bit ``at``."""
    block = at // RANK_BITS
    ones = np.int64(counters[block])
    word = block * RANK_BITS
    while word + 64 <= at:
        ones += popcount(load64(buffer, word >> 3))
        word += 64
    return ones + popcount(read_bits(buffer, word, at - word))  # byte-aligned, so 63 bits are in reach


@nb.njit(nogil=True, cache=True)
def count_blocks(buffer, n_bits, counters):  # type: ignore[no-untyped-def]
    """Fill ``counters[b]`` with the ones before bit ``b * RANK_BITS``; returns the ones in all."""
    ones = 0
    for block in range(len(counters)):
        counters[block] = ones
        at = block * RANK_BITS
        end = min(n_bits, at + RANK_BITS)
        while at < end:
            step = min(32, end - at)
            ones += popcount(read_bits(buffer, at, step))
            at += step
    return ones


@nb.njit(nogil=True, cache=True)
def count_ranges(buffer, width, out):  # type: ignore[no-untyped-def]
    """Fill ``out[i]`` with the ones among the ``width`` bits from bit ``i * width``."""
    for row in range(len(out)):
        at = row * width
        end = at + width
        ones = 0
        while at < end:
            step = min(56, end - at)
            ones += popcount(read_bits(buffer, at, step))
            at += step
        out[row] = ones


@nb.njit(nogil=True, cache=True)
def write_bits(buffer, values, width):  # type: ignore[no-untyped-def]
    """Put the low ``width`` bits of ``values[i]`` at bit ``i * width`` of a zeroed buffer."""
    for i in range(len(values)):
        at = i * width
        value = np.uint64(values[i]) & ((np.uint64(1) << np.uint64(width)) - np.uint64(1))
        left = width
        while left > 0:
            room = min(8 - (at & 7), left)
            part = value & ((np.uint64(1) << np.uint64(room)) - np.uint64(1))
            buffer[at >> 3] |= np.uint8(part << np.uint64(at & 7))
            value >>= np.uint64(room)
            at += room
            left -= room


@nb.njit(nogil=True, cache=True)
def unpack_bits(buffer, width, out):  # type: ignore[no-untyped-def]
    """Fill ``out[i]`` with the ``width`` bits at bit ``i * width``."""
    for i in range(len(out)):
        out[i] = read_bits(buffer, i * width, width)


@nb.njit(nogil=True, cache=True)
def positions(buffer, n_bits, start, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the places of the ones from bit ``start`` on, as many as fit; returns how many there were."""
    found = 0
    at = start
    while at < n_bits and found < len(out):
        step = min(56, n_bits - at)
        word = read_bits(buffer, at, step)
        while word != 0 and found < len(out):
            out[found] = at + trailing_zeros(word)
            found += 1
            word &= word - np.uint64(1)
        at += step
    return found

"""Bits in byte buffers: unaligned words, packed integers and ranks.

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

RANK_SHIFT = 9
RANK_BITS = 1 << RANK_SHIFT
"""Bits between two counters of a rank structure: 32 / 512 = 0.0625 bits of counters a bit."""


def data_pointer(context: Any, builder: Any, array_type: Any, value: Any) -> Any:
    """The address of an array's first element, in the code being made."""
    return cgutils.create_struct_proxy(array_type)(context, builder, value).data


def _loader(bits: int, result: Any, meaning: str) -> Any:
    """Make the function that reads ``bits`` bits, unaligned, from byte ``at`` of a uint8 array.

    NumPy's indexing in compiled code allows for negative indices, which keeps loops from becoming vector code.
    """

    def load(typing_context, buffer, at):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            pointer = builder.gep(data_pointer(context, builder, signature.args[0], args[0]), [args[1]])
            stored = ir.FloatType() if result is types.float32 else ir.IntType(bits)
            word = builder.load(builder.bitcast(pointer, stored.as_pointer()))
            word.align = 1
            return word

        return result(buffer, types.int64), codegen

    load.__doc__ = meaning
    return intrinsic(load)


load64 = _loader(64, types.uint64, "The 64-bit word at byte ``at`` of a uint8 array.")
load32 = _loader(32, types.float32, "The float32 at byte ``at`` of a uint8 array.")
load16 = _loader(16, types.uint16, "The 16-bit word at byte ``at`` of a uint8 array.")


@intrinsic
def read(typing_context, array, at):  # type: ignore[no-untyped-def]
    """Float32 number ``at`` of an array of float32, or of the bytes of one; ``at`` is known to be in it."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        singles = builder.bitcast(
            data_pointer(context, builder, signature.args[0], args[0]), ir.FloatType().as_pointer()
        )
        number = builder.load(builder.gep(singles, [args[1]]))
        number.align = 1
        return number

    return types.float32(array, types.int64), codegen


@intrinsic
def write(typing_context, array, at, value):  # type: ignore[no-untyped-def]
    """``array[at] = value`` of a float32 array, for ``at`` known to be in it."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        builder.store(args[2], builder.gep(data_pointer(context, builder, signature.args[0], args[0]), [args[1]]))
        return context.get_dummy_value()

    return types.void(array, types.int64, types.float32), codegen


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


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def read_bits(buffer, at, width):  # type: ignore[no-untyped-def]
    """The ``width`` <= 57 bits from bit ``at``, as an uint64."""
    return (load64(buffer, at >> 3) >> np.uint64(at & 7)) & ((np.uint64(1) << np.uint64(width)) - np.uint64(1))


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def read_word(buffer, at, width):  # type: ignore[no-untyped-def]
    """The ``width`` <= 64 bits from bit ``at``, as an uint64."""
    shift = np.uint64(at & 7)
    last = np.uint64(buffer[np.uint64((at + width) >> 3)])  # the ninth byte, where one is needed
    word = load64(buffer, at >> 3) >> shift | (last << np.uint64(1)) << (shift ^ np.uint64(63))
    half = np.uint64(width >> 1)
    return word & (((np.uint64(1) << half) << (np.uint64(width) - half)) - np.uint64(1))


@intrinsic
def ones_before(typing_context, buffer, byte, at):  # type: ignore[no-untyped-def]
    """The ones among the first ``at`` < 512 bits from ``byte``, as one vector; no word after bit ``at`` is read."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        buffer, byte, at = args
        long, lanes = ir.IntType(64), RANK_BITS // 64
        longs = ir.VectorType(long, lanes)

        def splat(value: Any) -> Any:
            empty = ir.Constant(longs, ir.Undefined)
            first = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(ir.IntType(32), lanes), None))

        def call(name: str, result: Any, *arguments: Any) -> Any:
            kind = ir.FunctionType(result, [argument.type for argument in arguments])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)

        source = builder.gep(data_pointer(context, builder, signature.args[0], buffer), [byte])
        order = ir.Constant(longs, [ir.Constant(long, lane) for lane in range(lanes)])
        last = splat(builder.lshr(at, ir.Constant(long, 6)))
        read = builder.icmp_unsigned("<=", order, last)
        one, zero = ir.Constant(ir.IntType(32), 1), ir.Constant(longs, None)
        words = call("llvm.masked.load.v8i64.p0", longs, source, one, read, zero)
        part = builder.sub(
            builder.shl(ir.Constant(long, 1), builder.and_(at, ir.Constant(long, 63))), ir.Constant(long, 1)
        )
        cut = builder.select(builder.icmp_unsigned("==", order, last), builder.and_(words, splat(part)), words)
        return call("llvm.vector.reduce.add.v8i64", long, call("llvm.ctpop.v8i64", longs, cut))

    return types.int64(buffer, types.int64, types.int64), codegen


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def rank(buffer, counters, at):  # type: ignore[no-untyped-def]
    """The number of ones before bit ``at``."""
    block = at >> RANK_SHIFT
    start = block << RANK_SHIFT
    return np.int64(counters[np.uint64(block)]) + ones_before(buffer, start >> 3, at - start)


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
def flip(buffer, places):  # type: ignore[no-untyped-def]
    """Turn the bits at ``places`` over."""
    for place in places:
        buffer[place >> 3] ^= np.uint8(1 << (place & 7))


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


@nb.njit(nogil=True, cache=True)
def read_integers(buffer, width, places, out):  # type: ignore[no-untyped-def]
    """Fill ``out[i]`` with the ``width`` bits at bit ``places[i] * width``."""
    for i in range(len(places)):
        out[i] = read_bits(buffer, places[i] * width, width)


@nb.njit(nogil=True, cache=True)
def rank_at(buffer, counters, at):  # type: ignore[no-untyped-def]
    """:func:`rank`, called from Python."""
    return rank(buffer, counters, at)


@nb.njit(nogil=True, cache=True)
def move_bits(buffer, start, n_bits, out):  # type: ignore[no-untyped-def]
    """Copy ``n_bits`` from bit ``start`` to the beginning of the zeroed ``out``."""
    for byte in range((n_bits + 7) >> 3):
        out[byte] = read_bits(buffer, start + byte * 8, min(8, n_bits - byte * 8))

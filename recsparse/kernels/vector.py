"""Vector comparisons that LLVM does not find in a plain loop, and casts that numba does not have, as intrinsics.

The vectors are LLVM's portable ones: AVX-512, AVX2 and NEON machines each get their own instructions.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from recsparse.kernels.bits import data_pointer
from recsparse.kernels.lanes import constant, load, splat, store

LANES = 64
"""How many scores a comparison takes; its answer is one bit each."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_UNDEFINED = ir.Constant(_VECTOR, ir.Undefined)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _VECTOR.as_pointer())


def _load(builder: Any, pointer: Any) -> Any:
    value = builder.load(pointer)
    value.align = 4
    return value


@intrinsic
def above(_typing: Any, row: Any, _offset: Any, _threshold: Any) -> Any:
    """Give the bits of ``row[offset : offset + 64] > threshold``, the first column lowest; NaN is never above."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, offset, threshold = arguments
        scores = _load(builder, _pointer(context, builder, signature.args[0], array, offset))
        first = builder.insert_element(_UNDEFINED, threshold, ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        hits = builder.fcmp_ordered(">", scores, builder.shuffle_vector(first, _UNDEFINED, zeros))
        return builder.bitcast(hits, ir.IntType(LANES))

    return types.uint64(row, types.int64, types.float32), generate


@intrinsic
def nonzero(_typing: Any, row: Any, _offset: Any) -> Any:
    """Give the bits of ``row[offset : offset + 64] != 0``, the first column lowest; NaN is not zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = _load(builder, _pointer(context, builder, signature.args[0], *arguments))
        hits = builder.fcmp_unordered("!=", numbers, ir.Constant(_VECTOR, [0.0] * LANES))
        return builder.bitcast(hits, ir.IntType(LANES))

    return types.uint64(row, types.int64), generate


def _weighted_sum(lanes: int) -> Any:
    """Make ``f(left, at, columns, n, right, dim, first, out, to)``: ``lanes`` columns of a row of a matrix product.

    ``out[to : to + lanes]`` becomes the sum of ``left[at + c] * right[c * dim + first :]`` over the first n columns c.
    """
    vector, long = ir.VectorType(ir.FloatType(), lanes), ir.IntType(64)

    def weighted_sum(_typing, left, _at, columns, _n, right, _dim, _first, out, _to):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            left, at, columns, n, right, dim, first, out, to = (
                argument if kind == types.int64 else data_pointer(context, builder, kind, argument)
                for kind, argument in zip(signature.args, arguments, strict=True)
            )
            total = cgutils.alloca_once_value(builder, constant(vector, 0.0))
            with cgutils.for_range(builder, n, start=ir.Constant(long, 0)) as entry:
                column = builder.load(builder.gep(columns, [entry.index]))
                number = splat(builder, builder.load(builder.gep(left, [builder.add(at, column)])), vector)
                row = load(builder, builder.gep(right, [builder.add(builder.mul(column, dim), first)]), vector)
                builder.store(builder.fadd(builder.load(total), builder.fmul(number, row)), total)
            store(builder, builder.load(total), builder.gep(out, [to]))
            return context.get_dummy_value()

        integer = types.int64
        return types.void(left, integer, columns, integer, right, integer, integer, out, integer), generate

    weighted_sum.__doc__ = f"{lanes} columns of a row of a matrix product, by the left row's listed columns."
    return intrinsic(weighted_sum)


NARROW = 16
weighted_sum = _weighted_sum(LANES)
weighted_sum_narrow = _weighted_sum(NARROW)


@intrinsic
def raise_to(_typing: Any, maxima: Any, _at: Any, row: Any, _offset: Any) -> Any:
    """Raise ``maxima[at : at + 64]`` to ``row[offset : offset + 64]`` where that is higher; NaN never is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        old = _load(builder, target)
        new = _load(builder, _pointer(context, builder, signature.args[2], arguments[2], arguments[3]))
        builder.store(builder.select(builder.fcmp_ordered(">", new, old), new, old), target, align=4)
        return context.get_dummy_value()

    return types.void(maxima, types.int64, row, types.int64), generate


@intrinsic
def lowest_bit(_typing: Any, _bits: Any) -> Any:
    """Give the position of the lowest set bit of a uint64 that is not 0."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def bits_of(_typing: Any, _value: Any) -> Any:
    """Give the bits of a float32 as an int32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
def float_of(_typing: Any, _bits: Any) -> Any:
    """Give the float32 that has these bits, an int32."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate

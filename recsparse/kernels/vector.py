"""Vector comparisons that LLVM does not find in a plain loop, and casts that numba does not have, as intrinsics.

The vectors are LLVM's portable ones: AVX-512, AVX2 and NEON machines each get their own instructions.
"""

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

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

"""Numbers spread over the ones of a mask: one instruction of AVX-512, else a permutation every eight lanes."""

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recsparse.kernels.bits import data_pointer
from recsparse.kernels.lanes import (
    BYTE,
    EIGHT,
    EIGHT_WORDS,
    LANES,
    SHORT,
    SINGLE,
    WORDS,
    Convert,
    as_bfloats,
    as_bytes,
    as_halves,
    as_singles,
    constant,
    joined,
    lacks,
    load,
    on_arm,
    order_of,
    permute,
    store,
)


def _expand_load(builder: Any, source: Any, bits: Any) -> Iterator[Any]:
    """The numbers from ``source`` on, vector after vector; reads only as many as it spreads.

    One instruction where the processor has it, a jump and a load a number elsewhere.
    """
    stored, columns = source.type.pointee, bits.type.width
    chosen, numbers = ir.VectorType(ir.IntType(1), columns), ir.VectorType(stored, columns)
    name = "f32" if stored == SINGLE else f"i{stored.width}"
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(numbers, [source.type, chosen, numbers]),
        f"llvm.masked.expandload.v{columns}{name}",
    )
    spread = builder.call(function, [source, builder.bitcast(bits, chosen), ir.Constant(numbers, None)])
    for part in range(0, columns, LANES):
        yield builder.shuffle_vector(spread, spread, order_of(WORDS, part))


def _places(builder: Any, mask: Any) -> Any:
    """For eight bits: how many ones are before each lane, -1 where the lane has none; from a table of 2 KB."""
    long, name = ir.IntType(64), "recsparse.places"
    if name not in builder.module.globals:
        places = [
            (bits & (1 << lane) - 1).bit_count() if bits >> lane & 1 else -1
            for bits in range(1 << EIGHT)
            for lane in range(EIGHT)
        ]
        table = ir.Constant(ir.ArrayType(BYTE, len(places)), [ir.Constant(BYTE, place) for place in places])
        cgutils.global_constant(builder.module, name, table)
    first = builder.mul(builder.zext(mask, long), ir.Constant(long, EIGHT))
    entry = builder.gep(builder.module.globals[name], [ir.Constant(long, 0), first])
    return builder.sext(load(builder, entry, ir.VectorType(BYTE, EIGHT)), EIGHT_WORDS)


def _look_up(builder: Any, numbers: Any, places: Any) -> Any:
    """``numbers[places]`` of eight words, 0 for place -1, by NEON, which looks up bytes; LLVM does not find it."""
    bytes_, four = ir.VectorType(BYTE, 2 * EIGHT), ir.VectorType(WORDS.element, EIGHT // 2)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(bytes_, [bytes_] * 3), "llvm.aarch64.neon.tbl2.v16i8"
    )
    places = builder.mul(places, constant(EIGHT_WORDS, 0x04040404))
    places = builder.add(places, constant(EIGHT_WORDS, 0x03020100))
    low, high, *halves = (
        builder.bitcast(builder.shuffle_vector(words, words, order_of(four, first)), bytes_)
        for words in (numbers, places)
        for first in (0, four.count)
    )
    return joined(builder, [builder.bitcast(builder.call(function, [low, high, half]), four) for half in halves])


def _permute_eights(context: Any, builder: Any, source: Any, bits: Any) -> Iterator[Any]:
    """:func:`_expand_load` for integers, sign-extended; reads beyond what it spreads, but no more numbers than bits."""
    zeros, halves = constant(EIGHT_WORDS, 0), []
    for first in range(0, bits.type.width, EIGHT):
        mask = builder.trunc(builder.lshr(bits, ir.Constant(bits.type, first)), BYTE)
        numbers = builder.sext(load(builder, source, ir.VectorType(source.type.pointee, EIGHT)), EIGHT_WORDS)
        places = _places(builder, mask)
        if on_arm(context):
            halves.append(_look_up(builder, numbers, places))
        else:
            none = builder.icmp_signed("<", places, zeros)
            halves.append(builder.select(none, zeros, permute(builder, numbers, places)))
        source = builder.gep(source, [builder.zext(builder.ctpop(mask), ir.IntType(64))])
    for low, high in zip(halves[::2], halves[1::2], strict=True):
        yield builder.shuffle_vector(low, high, order_of(WORDS))


def _expander(stored: Any, convert: Convert, meaning: str, columns: int = LANES) -> Any:
    """Make ``f(codes, at, factor, mask, out, to)``: the next numbers go to the ones of the mask of ``columns`` bits.

    Zeros elsewhere in ``out[to:to + columns]``. ``at`` counts numbers. Nothing after ``codes`` is read: without
    AVX-512 the last ``columns`` numbers are taken one by one.
    """
    integer, feature = (WORDS.element, "avx512f") if stored == SINGLE else (stored, "avx512vbmi2")

    def expand_lanes(typing_context, codes, at, factor, mask, out, to):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            codes, at, factor, mask, out, to = args
            array = cgutils.create_struct_proxy(signature.args[0])(context, builder, codes)
            source = builder.gep(builder.bitcast(array.data, stored.as_pointer()), [at])
            target = builder.gep(data_pointer(context, builder, signature.args[4], out), [to])
            bits, long = builder.trunc(mask, ir.IntType(columns)), ir.IntType(64)

            def write(parts: Iterator[Any]) -> None:
                for part, numbers in enumerate(parts):
                    place = builder.gep(target, [ir.Constant(long, part * LANES)])
                    store(builder, convert(context, builder, numbers, factor), place)

            if not (lacks(context, feature) or on_arm(context)):
                write(_expand_load(builder, source, bits))
                return context.get_dummy_value()
            last = builder.mul(builder.add(at, ir.Constant(long, columns)), ir.Constant(long, integer.width))
            end = builder.mul(array.nitems, ir.Constant(long, signature.args[0].dtype.bitwidth))
            with builder.if_else(builder.icmp_signed("<=", last, end)) as (inside, near_the_end):
                with inside:
                    write(_permute_eights(context, builder, builder.bitcast(source, integer.as_pointer()), bits))
                with near_the_end:
                    write(_expand_load(builder, source, bits))
            return context.get_dummy_value()

        return types.void(codes, types.int64, types.float32, types.uint64, out, types.int64), codegen

    expand_lanes.__doc__ = meaning
    return intrinsic(expand_lanes)


expand_singles = _expander(SINGLE, as_singles, "Float32 as they are, from their bytes or from an array of them.")
expand_halves = _expander(SHORT, as_halves, "Float16.")
expand_bfloats = _expander(SHORT, as_bfloats, "Bfloat16.")
expand_bytes = _expander(BYTE, as_bytes, "Signed bytes, times the factor.")
expand_wide_bytes = _expander(BYTE, as_bytes, "Signed bytes by a 64-bit mask: one instruction instead of four.", 64)
expand_wide_halves = _expander(SHORT, as_halves, "Float16 by a 32-bit mask: one instruction instead of two.", 32)
expand_wide_bfloats = _expander(SHORT, as_bfloats, "Bfloat16 by a 32-bit mask: one instruction instead of two.", 32)

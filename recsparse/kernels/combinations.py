"""Which k of n <= 64 columns: the subset's number among all ``C(n, k)`` of them, in ``ceil(log2 C(n, k))`` bits.

Numbering follows a split in halves: all subsets with fewer ones on the left come first; among those with as many, the
number is ``left * C(right, ones right) + right``, where each half of up to 32 is numbered the same way, down to
quarters of 16 that one table numbers by (ones, value). Two searches and two divisions thus find a subset, whatever k:
of 32 subsets at once, so that what one waits for is the others' time.

(Enumerative coding: Cover, 1973, IEEE Trans. Inf. Theory 19(1).)
"""

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recsparse.kernels.bits import data_pointer, popcount
from recsparse.kernels.lanes import (
    LANES,
    WORDS,
    choose,
    constant,
    gather,
    has,
    joined,
    load,
    order_of,
    store,
)

CHUNK = 64
HALF = 32
QUARTER = 16

AT_ONCE = 32
"""Numbers that :func:`unrank` takes."""


def _search(context: Any, builder: Any, table: Any, starts: Any, ones: Any, number: Any, columns: int) -> Any:
    """How many entries of a lane's column after its first are at most ``number``, and the last of those (or 0).

    The column is that of the lane's ``ones``, in the part of the table for its share of the lanes; no more than
    ``ones`` nor the half's ``columns`` can be. With AVX-512, and fewer than ``LANES`` ones in every lane, entry after
    entry is permuted from one vector; else it is a binary search of gathers, steps too large for every lane left out.
    """
    vector, element = number.type, number.type.element
    long, stride, part = ir.IntType(64), 2 * columns + 1, vector.count // len(starts)
    largest = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(element, [vector]),
        f"llvm.vector.reduce.umax.v{vector.count}i{element.width}",
    )
    most = builder.call(largest, [ones])
    found, before = (cgutils.alloca_once_value(builder, constant(vector, 0)) for _ in range(2))

    def compare(further: Any, entry: Any) -> None:
        within = builder.icmp_unsigned("<=", entry, number)
        for kept, new in ((found, further), (before, entry)):
            builder.store(builder.select(within, new, builder.load(kept)), kept)

    def one_by_one() -> None:
        end = builder.add(most if element == long else builder.zext(most, long), ir.Constant(long, 1))
        with cgutils.for_range(builder, end, start=ir.Constant(long, 1)) as step:
            entries = []
            for share, start in enumerate(starts):
                first = builder.add(builder.mul(step.index, ir.Constant(long, stride)), ir.Constant(long, start))
                sixteen = load(builder, builder.gep(table, [first]), ir.VectorType(element, LANES))
                places = builder.shuffle_vector(ones, ones, order_of(ir.VectorType(WORDS.element, part), share * part))
                entries.append(choose(context, builder, sixteen, places))
            compare(builder.add(builder.load(found), constant(vector, 1)), joined(builder, entries))

    def by_halves() -> None:
        column = builder.add(
            ones, ir.Constant(vector, [ir.Constant(element, starts[lane // part]) for lane in range(vector.count)])
        )
        steps = [1 << place for place in reversed(range(columns.bit_length() - 1))]
        for step, needed in (*zip(steps, steps, strict=True), (1, columns)):
            with builder.if_then(builder.icmp_unsigned(">=", most, ir.Constant(element, needed))):
                further = builder.add(builder.load(found), constant(vector, step))
                place = builder.add(column, builder.mul(further, constant(vector, stride)))
                compare(further, gather(builder, table, place))

    if has(context, "avx512f"):
        with builder.if_else(builder.icmp_unsigned("<", most, ir.Constant(element, LANES))) as (few, many):
            with few:
                one_by_one()
            with many:
                by_halves()
    else:
        by_halves()
    return builder.load(found), builder.load(before)


def _divide(builder: Any, number: Any, divisor: Any, floats: Any) -> tuple[Any, Any]:
    """Quotient and remainder by way of floats, which are off by less than a half for what :func:`unrank` divides."""
    vector = number.type
    ratio = builder.fdiv(builder.sitofp(number, floats), builder.sitofp(divisor, floats))
    quotient = builder.fptosi(builder.fsub(ratio, constant(floats, 0.5)), vector)  # right, or one too low
    rest = builder.sub(number, builder.mul(quotient, divisor))
    low = builder.icmp_signed(">=", rest, divisor)
    one_more = builder.add(quotient, constant(vector, 1))
    return builder.select(low, one_more, quotient), builder.select(low, builder.sub(rest, divisor), rest)


@intrinsic
def unrank(typing_context, notes, at, ones_at, whole, whole_choose, halves, half_choose, subsets, first_subset):  # type: ignore[no-untyped-def]
    """Put the subset, as bits, in the place of each of ``AT_ONCE`` subset numbers.

    Args:
        typing_context: numba's.
        notes: int64, which holds both.
        at: where the numbers begin; any number is safe, if its ones are.
        ones_at: where their ones begin, each at most the width.
        whole: uint64 (33 * 65,), by j and ones, subsets before those with j ones on the left.
        whole_choose: uint64 (65,), subsets of the right half.
        halves: uint32 (2 * 17 * 33,), the same for each half.
        half_choose: uint32 (2 * 33,), subsets of each half's right quarter.
        subsets: uint16 (65536,), 16-bit numbers by (ones, value).
        first_subset: uint32 (18,), where each number of ones begins there.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        notes, *tables = (
            data_pointer(context, builder, kind, value)
            for kind, value in zip(signature.args, args, strict=True)
            if kind != types.int64
        )
        whole, whole_choose, halves, half_choose, subsets, first_subset = tables
        long, word = ir.IntType(64), ir.IntType(32)
        longs, words = ir.VectorType(long, AT_ONCE), ir.VectorType(word, 2 * AT_ONCE)
        target, ones = (builder.gep(notes, [place]) for place in args[1:3])
        number = builder.and_(load(builder, target, longs), constant(longs, (1 << 61) - 1))
        ones = load(builder, ones, longs)

        left_ones, before = _search(context, builder, whole, [0], ones, number, HALF)
        right_ones = builder.sub(ones, left_ones)
        divisor = gather(builder, whole_choose, right_ones)
        doubles, singles = ir.VectorType(ir.DoubleType(), AT_ONCE), ir.VectorType(ir.FloatType(), 2 * AT_ONCE)
        left, right = _divide(builder, builder.sub(number, before), divisor, doubles)

        def both(one: Any, other: Any) -> Any:  # left halves, then right halves
            return builder.trunc(builder.shuffle_vector(one, other, order_of(words)), words)

        number = builder.and_(both(left, right), constant(words, (1 << 30) - 1))
        ones = both(left_ones, right_ones)
        sides = [0, (QUARTER + 1) * (HALF + 1)]
        left_ones, before = _search(context, builder, halves, sides, ones, number, QUARTER)
        right_ones = builder.sub(ones, left_ones)
        divisor = builder.shuffle_vector(
            *(
                choose(
                    context,
                    builder,
                    load(builder, builder.gep(half_choose, [ir.Constant(long, place)]), WORDS),
                    builder.shuffle_vector(right_ones, right_ones, order_of(ir.VectorType(word, AT_ONCE), first)),
                )
                for place, first in ((0, 0), (33, AT_ONCE))
            ),
            order_of(words),
        )
        left, right = _divide(builder, builder.sub(number, before), divisor, singles)
        quarters = []
        for value, count in ((left, left_ones), (right, right_ones)):
            # The one subset of all sixteen is the last in the table, and so before the first.
            first = choose(context, builder, load(builder, first_subset, WORDS), count)
            first = builder.sub(first, builder.lshr(count, constant(words, 4)))
            place = builder.add(value, first)
            place = builder.and_(place, constant(words, 0xFFFF))  # a damaged number stays in the table
            pair = gather(builder, builder.bitcast(subsets, word.as_pointer()), builder.lshr(place, constant(words, 1)))
            bit = builder.shl(builder.and_(place, constant(words, 1)), constant(words, 4))
            quarters.append(builder.and_(builder.lshr(pair, bit), constant(words, 0xFFFF)))
        half = builder.or_(quarters[0], builder.shl(quarters[1], constant(words, 16)))
        low, high = (
            builder.zext(builder.shuffle_vector(half, half, order_of(ir.VectorType(word, AT_ONCE), first)), longs)
            for first in (0, AT_ONCE)
        )
        store(builder, builder.or_(low, builder.shl(high, constant(longs, 32))), target)
        return context.get_dummy_value()

    tables = (whole, whole_choose, halves, half_choose, subsets, first_subset)
    return types.void(notes, types.int64, types.int64, *tables), codegen


@nb.njit(forceinline=True, cache=True)
def rank_half(mask, side, halves, half_choose, numbers):  # type: ignore[no-untyped-def]
    """The number of a half's subset; ``numbers`` is uint16 (65536,), each 16-bit number's place in its class."""
    left = mask & np.uint64(0xFFFF)
    right = (mask >> np.uint64(QUARTER)) & np.uint64(0xFFFF)
    left_ones = popcount(left)
    right_ones = popcount(right)
    return (
        np.uint64(halves[(side * 17 + left_ones) * 33 + left_ones + right_ones])
        + np.uint64(numbers[left]) * np.uint64(half_choose[side * 33 + right_ones])
        + np.uint64(numbers[right])
    )


@nb.njit(forceinline=True, cache=True)
def rank_subset(mask, whole, whole_choose, halves, half_choose, numbers):  # type: ignore[no-untyped-def]
    """The inverse of :func:`unrank`."""
    left = mask & np.uint64(0xFFFFFFFF)
    right = mask >> np.uint64(32)
    left_ones = popcount(left)
    right_ones = popcount(right)
    return (
        whole[left_ones * 65 + left_ones + right_ones]
        + rank_half(left, 0, halves, half_choose, numbers) * whole_choose[right_ones]
        + rank_half(right, 1, halves, half_choose, numbers)
    )

"""Many rows against one vector, a strip of columns at a time: the vector's stays in registers as the rows go by.

Row by row, a compiler reads the vector and what is summed anew, and asks each time whether they overlap. Vectors are
named by table and row, for a slice would count references, which takes as long as a short row.
"""

from collections.abc import Callable
from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recsparse.kernels.bits import data_pointer
from recsparse.kernels.lanes import SINGLE, load, splat, store

WIDE, NARROW = 64, 16
"""Columns of a strip: 4 registers of AVX-512, 8 of AVX2; what is left of a row goes by narrow ones, then singly."""

_LOOSE = ("contract", "reassoc", "nsz")


def _strip(context: Any, builder: Any, table_type: Any, value: Any, row: Any, column: Any) -> Any:
    """Point to the entry from which on a strip of a whole table's row goes."""
    table = context.make_array(table_type)(context, builder, value)
    dim = cgutils.unpack_tuple(builder, table.shape, 2)[1]
    return builder.gep(table.data, [builder.add(builder.mul(row, dim), column)])


def _scorer(width: int) -> Callable[..., None]:
    lanes = ir.VectorType(SINGLE, width)

    @intrinsic
    def add_products(typing_context, table, rows, begin, end, vectors, vector, column, scores):  # type: ignore[no-untyped-def]
        """Add one strip's part to what :func:`score_rows` writes."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            _, _, begin, end, _, vector, column, _ = args
            own = load(builder, _strip(context, builder, signature.args[4], args[4], vector, column), lanes)
            rows, scores = (data_pointer(context, builder, signature.args[at], args[at]) for at in (1, 7))
            kind = ir.FunctionType(SINGLE, [SINGLE, lanes])
            reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{width}f32")
            with cgutils.for_range_slice(builder, begin, end, begin.type(1), inc=True) as (at, _):
                row = builder.load(builder.gep(rows, [at]))
                entries = load(builder, _strip(context, builder, signature.args[0], args[0], row, column), lanes)
                products = builder.fmul(entries, own, flags=_LOOSE)
                place = builder.gep(scores, [builder.sub(at, begin)])
                total = builder.call(reduce, [SINGLE(-0.0), products], fastmath=_LOOSE)
                builder.store(builder.fadd(builder.load(place), total, flags=_LOOSE), place)
            return context.get_dummy_value()

        long = types.int64
        return types.void(table, rows, long, long, vectors, long, long, scores), codegen

    return add_products  # type: ignore[no-any-return]


def _stepper(width: int) -> Callable[..., None]:
    lanes = ir.VectorType(SINGLE, width)

    @intrinsic
    def step_strip(typing_context, table, rows, begin, end, weights, vectors, vector, pull, column, keep, rate):  # type: ignore[no-untyped-def]
        """Do to one strip what :func:`step_rows` does to whole rows."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            _, _, begin, end, _, _, vector, _, column, keep, rate = args
            own = load(builder, _strip(context, builder, signature.args[5], args[5], vector, column), lanes)
            rows, weights, pull = (data_pointer(context, builder, signature.args[at], args[at]) for at in (1, 4, 7))
            pull = builder.gep(pull, [column])
            total = cgutils.alloca_once(builder, lanes)
            builder.store(load(builder, pull, lanes), total)
            keep = splat(builder, keep, lanes)
            with cgutils.for_range_slice(builder, begin, end, begin.type(1), inc=True) as (at, _):
                row = builder.load(builder.gep(rows, [at]))
                place = _strip(context, builder, signature.args[0], args[0], row, column)
                entries = load(builder, place, lanes)
                weight = builder.load(builder.gep(weights, [builder.sub(at, begin)]))
                pulled = builder.fmul(splat(builder, weight, lanes), entries, flags=_LOOSE)
                builder.store(builder.fadd(builder.load(total), pulled, flags=_LOOSE), total)
                reach = builder.fmul(splat(builder, builder.fmul(weight, rate), lanes), own, flags=_LOOSE)
                store(builder, builder.fadd(builder.fmul(keep, entries, flags=_LOOSE), reach, flags=_LOOSE), place)
            store(builder, builder.load(total), pull)
            return context.get_dummy_value()

        single, long = types.float32, types.int64
        return types.void(table, rows, long, long, weights, vectors, long, pull, long, single, single), codegen

    return step_strip  # type: ignore[no-any-return]


_add_wide, _add_narrow = _scorer(WIDE), _scorer(NARROW)
_step_wide, _step_narrow = _stepper(WIDE), _stepper(NARROW)


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def score_rows(table, rows, begin, end, vectors, vector, scores):  # type: ignore[no-untyped-def]
    """Write the products of row ``vector`` of ``vectors`` and ``rows[begin:end]`` of ``table``; both tables whole."""
    dim = table.shape[1]
    wide = dim // WIDE * WIDE
    narrow = dim // NARROW * NARROW
    for at in range(end - begin):
        scores[at] = 0
    for column in range(0, wide, WIDE):
        _add_wide(table, rows, begin, end, vectors, vector, column, scores)
    for column in range(wide, narrow, NARROW):
        _add_narrow(table, rows, begin, end, vectors, vector, column, scores)
    if narrow < dim:
        for at in range(begin, end):
            for column in range(narrow, dim):
                scores[at - begin] += vectors[vector, column] * table[rows[at], column]


@nb.njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def step_rows(table, rows, begin, end, weights, vectors, vector, pull, keep, rate):  # type: ignore[no-untyped-def]
    """Take one step of plain SGD on ``rows[begin:end]`` of ``table``, one after the other.

    A row v of weight w becomes ``keep`` v + ``rate`` w u, u being row ``vector`` of ``vectors``; w v, as v was, is
    added to ``pull``.
    """
    dim = table.shape[1]
    wide = dim // WIDE * WIDE
    narrow = dim // NARROW * NARROW
    for column in range(0, wide, WIDE):
        _step_wide(table, rows, begin, end, weights, vectors, vector, pull, column, keep, rate)
    for column in range(wide, narrow, NARROW):
        _step_narrow(table, rows, begin, end, weights, vectors, vector, pull, column, keep, rate)
    if narrow < dim:
        for at in range(begin, end):
            reach = rate * weights[at - begin]
            for column in range(narrow, dim):
                value = table[rows[at], column]
                pull[column] += weights[at - begin] * value
                table[rows[at], column] = keep * value + reach * vectors[vector, column]

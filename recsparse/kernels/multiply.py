"""Rows of packed tables times a basis -> dense float32: sums of a few of the basis' rows, one kernel a support.

They take what those of :mod:`recsparse.kernels.gather` do, with a basis, flat (D * width,), before the room to work,
and room for listed columns after it; the output is flat (B * width,). Every batch of rows is listed first, columns and
numbers, one row after the other.
"""

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recsparse.kernels.batches import BATCH, drop, mask_at, place_of, row_factor
from recsparse.kernels.bits import data_pointer, load64, popcount, read, write
from recsparse.kernels.combinations import CHUNK
from recsparse.kernels.decode import decode
from recsparse.kernels.lanes import BYTE, EIGHT, LANES, WORDS, constant, has, load, mask_of, order_of, splat, store
from recsparse.kernels.locate import locate_bitmap, locate_blocks, locate_combination, locate_full, locate_list

WIDE = 64
"""Columns of a product that are summed at one time: four registers of AVX-512, eight of AVX2."""

MANY = 8
"""Columns a row, on average, from which masks list them sooner than one after the other."""


def _weighted_sum(lanes: int) -> Any:
    """Make ``f(numbers, columns, start, n, basis, width, first, out, to)``: ``lanes`` columns of a product.

    ``out[to : to + lanes]`` becomes the sum of ``numbers[i] * basis[columns[i] * width + first :]`` over n numbers from
    number ``start`` on.
    """
    vector, long = ir.VectorType(ir.FloatType(), lanes), ir.IntType(64)

    def weighted_sum(_typing, numbers, columns, _start, _n, basis, _width, _first, out, _to):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            numbers, columns, start, n, basis, width, first, out, to = (
                argument if kind == types.int64 else data_pointer(context, builder, kind, argument)
                for kind, argument in zip(signature.args, arguments, strict=True)
            )
            numbers, columns = builder.gep(numbers, [start]), builder.gep(columns, [start])
            total = cgutils.alloca_once_value(builder, constant(vector, 0.0))
            with cgutils.for_range(builder, n, start=ir.Constant(long, 0)) as entry:
                column = builder.zext(builder.load(builder.gep(columns, [entry.index])), long)
                number = splat(builder, builder.load(builder.gep(numbers, [entry.index])), vector)
                row = load(builder, builder.gep(basis, [builder.add(builder.mul(column, width), first)]), vector)
                builder.store(builder.fadd(builder.load(total), builder.fmul(number, row)), total)
            store(builder, builder.load(total), builder.gep(out, [to]))
            return context.get_dummy_value()

        integer = types.int64
        return types.void(numbers, columns, integer, integer, basis, integer, integer, out, integer), generate

    weighted_sum.__doc__ = f"{lanes} columns of a listed row's product."
    return intrinsic(weighted_sum)


_wide_sum, _narrow_sum = _weighted_sum(WIDE), _weighted_sum(LANES)


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def multiply_rows(batch, end, dim, column_scales, basis, out, numbers, places, columns):  # type: ignore[no-untyped-def]
    """Write the products of a batch's rows, whose numbers and columns are listed one after the other."""
    width = len(basis) // dim
    start = np.int64(0)
    for i in range(batch, end):
        n = place_of(i, places)[2]
        to = i * width
        if len(column_scales) > 0:
            for j in range(start, start + n):
                write(numbers, j, read(numbers, j) * read(column_scales, np.int64(columns[np.uint64(j)])))
        column = np.int64(0)
        while column + WIDE <= width:
            _wide_sum(numbers, columns, start, n, basis, width, column, out, to + column)
            column += WIDE
        while column + LANES <= width:
            _narrow_sum(numbers, columns, start, n, basis, width, column, out, to + column)
            column += LANES
        while column < width:
            total = np.float32(0)
            for j in range(start, start + n):
                total += read(numbers, j) * read(basis, np.int64(columns[np.uint64(j)]) * width + column)
            write(out, to + column, total)
            column += 1
        start += n


@intrinsic
def list_ones(typing_context, mask, first, columns, at):  # type: ignore[no-untyped-def]
    """Write ``first`` + the place of each one of a 64-bit mask to ``columns[at:]``, which has room for all 64.

    One instruction packs all 64 places with AVX-512; else a table has those of each byte.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        mask, first, columns, at = args
        columns, long = data_pointer(context, builder, signature.args[2], columns), ir.IntType(64)
        first = builder.trunc(first, WORDS.element)

        def write_places(places: Any, first: Any, at: Any) -> None:
            wide = builder.zext(places, ir.VectorType(WORDS.element, places.type.count))
            store(builder, builder.add(wide, splat(builder, first, wide.type)), builder.gep(columns, [at]))

        if has(context, "avx512vbmi2"):
            bytes_, chosen = ir.VectorType(BYTE, CHUNK), ir.VectorType(ir.IntType(1), CHUNK)
            compress = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(bytes_, [bytes_, bytes_, chosen]),
                f"llvm.x86.avx512.mask.compress.v{CHUNK}i8",
            )
            places = builder.call(compress, [order_of(bytes_), constant(bytes_, 0), builder.bitcast(mask, chosen)])

            def write_lanes(lane: int, lanes: int) -> None:
                some = builder.shuffle_vector(places, places, order_of(ir.VectorType(WORDS.element, lanes), lane))
                write_places(some, first, builder.add(at, ir.Constant(long, lane)))

            write_lanes(0, LANES)
            with builder.if_then(builder.icmp_unsigned(">", builder.ctpop(mask), ir.Constant(long, LANES))):
                write_lanes(LANES, CHUNK - LANES)
            return context.get_dummy_value()
        table = _places_of_ones(builder)
        for part in range(0, CHUNK, EIGHT):
            byte = builder.trunc(builder.lshr(mask, ir.Constant(long, part)), BYTE)
            entry = builder.gep(table, [ir.Constant(long, 0), builder.zext(byte, long)])
            places = load(builder, entry, ir.VectorType(BYTE, EIGHT))
            write_places(places, builder.add(first, ir.Constant(WORDS.element, part)), at)
            at = builder.add(at, builder.zext(builder.ctpop(byte), long))
        return context.get_dummy_value()

    return types.void(types.uint64, types.int64, columns, types.int64), codegen


def _places_of_ones(builder: Any) -> Any:
    """The places of the ones of each byte, eight bytes each, in the module being made."""
    name = "recsparse.places_of_ones"
    if name not in builder.module.globals:
        entries = []
        for bits in range(1 << EIGHT):
            places = [place for place in range(EIGHT) if bits >> place & 1]
            entries.append(int.from_bytes(bytes(places), "little"))
        kind = ir.ArrayType(ir.IntType(64), len(entries))
        table = ir.Constant(kind, [ir.Constant(kind.element, entry) for entry in entries])
        cgutils.global_constant(builder.module, name, table)
    return builder.module.globals[name]


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def list_whole(  # type: ignore[no-untyped-def]
    batch, end, n_numbers, codes, kind, row_scales, lattice, numbers, places, columns
):  # fmt: skip
    """List a batch's rows, of which every entry is stored."""
    start = np.int64(0)
    for i in range(batch, end):
        row, first, n, _ = place_of(i, places)
        if n == 0:
            continue
        for column in range(n):
            columns[np.uint64(start + column)] = column
        decode(codes, kind, first, n, n_numbers, row_factor(row, row_scales, lattice), numbers, start)
        start += n


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def list_masked(  # type: ignore[no-untyped-def]
    batch, end, chunk, n_numbers, codes, kind, row_scales, lattice, dim, numbers, places, columns
):  # fmt: skip
    """List a batch's rows, whose places and masks of ``chunk`` columns are noted; returns how many lead outside."""
    outside = 0
    start = np.int64(0)
    for i in range(batch, end):
        row, first, n, _ = place_of(i, places)
        if n == 0:
            continue
        listed = start
        at = np.uint64(mask_at(i, dim))
        column = 0
        while column < dim:
            mask = np.uint64(places[at]) & (~np.uint64(0) >> np.uint64(CHUNK - min(chunk, dim - column)))
            list_ones(mask, column, columns, listed)
            listed += popcount(mask)
            at += np.uint64(1)
            column += chunk
        if listed != start + n:
            outside += 1
            drop(i, places)
            continue
        decode(codes, kind, first, n, n_numbers, row_factor(row, row_scales, lattice), numbers, start)
        start = listed
    return outside


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def unpack_columns(packed, first, n, width, dim, columns, start):  # type: ignore[no-untyped-def]
    """List a row's ``n`` columns, packed in ``width`` bits each; whether all of them are there."""
    mask = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    left = np.int64(0)  # columns to the right of each, or'ed; negative if there is one past the last
    bit = first * width
    for j in range(start, start + n):
        column = (load64(packed, bit >> 3) >> np.uint64(bit & 7)) & mask
        columns[np.uint64(j)] = column
        left |= dim - 1 - np.int64(column)
        bit += width
    return left >= 0


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def unpack_many_columns(packed, first, n, width, dim, columns, start):  # type: ignore[no-untyped-def]
    """:func:`unpack_columns` of at most 7 bits by way of masks, sixteen at a time."""
    listed = start
    for chunk in range(0, dim, CHUNK):
        ones = np.uint64(0)
        for done in range(0, n, LANES):
            ones |= mask_of(packed, (first + done) * width, width, n - done, chunk)
        ones &= ~np.uint64(0) >> np.uint64(CHUNK - min(CHUNK, dim - chunk))
        list_ones(ones, chunk, columns, listed)
        listed += popcount(ones)
    return listed == start + n


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def list_packed(  # type: ignore[no-untyped-def]
    batch, end, n_stored, packed, column_width, n_numbers, codes, kind, row_scales, lattice, dim, numbers, places,
    columns,
):  # fmt: skip
    """List a batch's rows, whose places are noted and columns packed; returns how many lead outside."""
    many = column_width <= 7 and n_numbers > MANY * n_stored
    outside = 0
    start = np.int64(0)
    for i in range(batch, end):
        row, first, n, _ = place_of(i, places)
        if n == 0:
            continue
        if many and first + n + LANES <= n_numbers:
            inside = unpack_many_columns(packed, first, n, column_width, dim, columns, start)
        else:
            inside = unpack_columns(packed, first, n, column_width, dim, columns, start)
        if not inside:
            outside += 1
            drop(i, places)
            continue
        decode(codes, kind, first, n, n_numbers, row_factor(row, row_scales, lattice), numbers, start)
        start += n
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def multiply_full(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, n_numbers, codes, kind, row_scales, lattice, column_scales, flat, dim,
    found, basis, numbers, places, columns,
):  # fmt: skip
    """Every entry of a stored row is stored."""
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        outside += locate_full(
            batch, end, ids, n_rows, n_stored, remap, counters, n_numbers, codes, kind, row_scales, dim, found, places
        )
        list_whole(batch, end, n_numbers, codes, kind, row_scales, lattice, numbers, places, columns)
        multiply_rows(batch, end, dim, column_scales, basis, flat, numbers, places, columns)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def multiply_bitmap(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, bits, bit_counters, n_numbers, codes, kind, row_scales, lattice,
    column_scales, flat, dim, found, basis, numbers, places, columns,
):  # fmt: skip
    """A bit an entry."""
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        outside += locate_bitmap(
            batch, end, ids, n_rows, n_stored, remap, counters, bits, bit_counters, n_numbers, codes,
            kind, row_scales, dim, found, places,
        )  # fmt: skip
        outside += list_masked(
            batch, end, CHUNK, n_numbers, codes, kind, row_scales, lattice, dim, numbers, places, columns
        )
        multiply_rows(batch, end, dim, column_scales, basis, flat, numbers, places, columns)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def multiply_blocks(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, block_rows, block_columns, tile_masks, bits, bit_counters, n_numbers,
    codes, kind, row_scales, lattice, column_scales, flat, dim, found, basis, numbers, places, columns,
):  # fmt: skip
    """A bit a tile."""
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        outside += locate_blocks(
            batch, end, ids, n_rows, n_stored, remap, counters, block_rows, block_columns, tile_masks,
            bits, bit_counters, n_numbers, codes, kind, row_scales, dim, found, places,
        )  # fmt: skip
        outside += list_masked(
            batch, end, CHUNK, n_numbers, codes, kind, row_scales, lattice, dim, numbers, places, columns
        )
        multiply_rows(batch, end, dim, column_scales, basis, flat, numbers, places, columns)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def multiply_list(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts, packed, column_width, n_numbers,
    codes, kind, row_scales, lattice, column_scales, flat, dim, found, basis, numbers, places, columns,
):  # fmt: skip
    """A column number an entry."""
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        outside += locate_list(
            batch, end, ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts,
            packed, column_width, n_numbers, codes, kind, row_scales, dim, found, places,
        )  # fmt: skip
        outside += list_packed(
            batch, end, n_stored, packed, column_width, n_numbers, codes, kind, row_scales, lattice, dim, numbers,
            places, columns,
        )  # fmt: skip
        multiply_rows(batch, end, dim, column_scales, basis, flat, numbers, places, columns)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def multiply_combination(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts, subset_starts, subset_numbers,
    width, n_bits, subset_bits, pair_sums, whole, whole_choose, halves, half_choose, subsets, first_subset,
    n_numbers, codes, kind, row_scales, lattice, column_scales, flat, dim, found, basis, numbers, places, columns,
):  # fmt: skip
    """A subset number a chunk."""
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        outside += locate_combination(
            batch, end, ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts,
            subset_starts, subset_numbers, width, n_bits, subset_bits, pair_sums, whole, whole_choose,
            halves, half_choose, subsets, first_subset, n_numbers, codes, kind, row_scales, dim, found,
            places,
        )  # fmt: skip
        outside += list_masked(
            batch, end, width, n_numbers, codes, kind, row_scales, lattice, dim, numbers, places, columns
        )
        multiply_rows(batch, end, dim, column_scales, basis, flat, numbers, places, columns)
    return outside

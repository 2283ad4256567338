"""Rows of packed tables -> dense float32, one kernel a support.

All take the ids (int64, any value), the number of rows and of stored rows, the remap (bitmap and counters; empty when
every row is stored), what the support stores, how many numbers there are and what the values store, then ``out`` (B, D)
and ``found`` (B,): false, and a row of zeros, where an id is out of range or its row is not stored.

They return how many rows lead outside of what is stored, which a damaged file can cause; such rows are zero, and
nothing outside is ever read or written.
"""

import numba as nb
import numpy as np

from recsparse.kernels.bits import popcount, rank, read, read_bits, write
from recsparse.kernels.combinations import unrank
from recsparse.kernels.decode import FP32, SLACK, decode
from recsparse.kernels.lanes import LANES, expand

GROUP = 16
"""Rows between two stored starts; in between, counts are added up."""


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def stored_row(row, n_rows, remap, counters):  # type: ignore[no-untyped-def]
    """Where a row is stored, -1 where it is not; ``n_stored`` and beyond if the counters are damaged."""
    if row < 0 or row >= n_rows:
        return np.int64(-1)
    if len(counters) == 0:
        return np.int64(row)
    if read_bits(remap, row, 1) == 0:
        return np.int64(-1)
    return rank(remap, counters, row)


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def row_factor(row, row_scales, lattice):  # type: ignore[no-untyped-def]
    """The row's scale, 1 without row scales."""
    return lattice[row_scales[row]] if len(row_scales) > 0 else np.float32(1)


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def clear(out, to, dim):  # type: ignore[no-untyped-def]
    """Write a row of zeros."""
    for column in range(dim):
        write(out, to + column, np.float32(0))


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def scale_columns(out, to, column_scales):  # type: ignore[no-untyped-def]
    """Multiply a row by the column scales, if there are any."""
    for column in range(len(column_scales)):
        write(out, to + column, read(out, to + column) * read(column_scales, column))


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def spread(mask, width, source, at, out, to):  # type: ignore[no-untyped-def]
    """Spread ``source[at:]`` over the ones of a ``width`` <= 64 bit mask, zeros elsewhere; returns how many."""
    column = 0
    used = at
    while column + LANES <= width:
        bits = (mask >> np.uint64(column)) & np.uint64((1 << LANES) - 1)
        expand(source, used, bits, out, to + column)
        used += popcount(bits)
        column += LANES
    while column < width:
        if (mask >> np.uint64(column)) & np.uint64(1):
            write(out, to + column, read(source, used))
            used += 1
        else:
            write(out, to + column, np.float32(0))
        column += 1
    return used - at


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def entries_of(row, per_row, counts, count_width, starts):  # type: ignore[no-untyped-def]
    """The first number of a stored row of one count, and how many it has."""
    if count_width == 0:
        return row * np.int64(per_row), np.int64(per_row)
    start = np.int64(starts[row // GROUP])
    for before in range(row - row % GROUP, row):
        start += np.int64(read_bits(counts, before * count_width, count_width))
    return start, np.int64(read_bits(counts, row * count_width, count_width))


@nb.njit(nogil=True, cache=True, error_model="numpy")
def gather_full(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, n_numbers, codes, kind, row_scales, lattice, column_scales, out, found
):
    """Every entry of a stored row is stored."""
    dim = out.shape[1]
    flat = out.reshape(-1)
    outside = 0
    for i in range(len(ids)):
        row = stored_row(ids[i], n_rows, remap, counters)
        if row >= n_stored:
            outside += 1
            row = np.int64(-1)
        found[i] = row >= 0
        if row < 0:
            clear(flat, i * dim, dim)
            continue
        decode(codes, kind, row * dim, dim, n_numbers, row_factor(row, row_scales, lattice), flat, i * dim)
        scale_columns(flat, i * dim, column_scales)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy")
def gather_bitmap(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, bits, bit_counters, n_numbers, codes, kind, row_scales, lattice,
    column_scales, out, found,
):  # fmt: skip
    """A bit an entry; values row after row."""
    dim = out.shape[1]
    flat = out.reshape(-1)
    numbers = np.empty(dim + SLACK, dtype=np.float32)
    outside = 0
    for i in range(len(ids)):
        row = stored_row(ids[i], n_rows, remap, counters)
        to = i * dim
        n = 0
        start = np.int64(0)
        first = row * dim
        if row >= n_stored:
            outside += 1
        elif row >= 0:
            for column in range(0, dim, 56):
                n += popcount(read_bits(bits, first + column, min(56, dim - column)))
            start = rank(bits, bit_counters, first)
            if start < 0 or start + n > n_numbers:
                outside += 1
                n = 0
        found[i] = n > 0
        if n == 0:
            clear(flat, to, dim)
            continue
        used = 0
        if kind == FP32:
            for column in range(0, dim, 48):
                width = min(48, dim - column)
                used += spread(read_bits(bits, first + column, width), width, codes, start + used, flat, to + column)
            continue
        decode(codes, kind, start, n, n_numbers, row_factor(row, row_scales, lattice), numbers, 0)
        for column in range(0, dim, 48):
            width = min(48, dim - column)
            used += spread(read_bits(bits, first + column, width), width, numbers, used, flat, to + column)
        scale_columns(flat, to, column_scales)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy")
def gather_blocks(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, block_rows, block_columns, bits, bit_counters, n_numbers, codes, kind,
    row_scales, lattice, column_scales, out, found,
):  # fmt: skip
    """A bit a tile of ``block_rows`` x ``block_columns``; values row after row."""
    dim = out.shape[1]
    tiles = dim // block_columns
    flat = out.reshape(-1)
    numbers = np.empty(dim + SLACK, dtype=np.float32)
    outside = 0
    for i in range(len(ids)):
        row = stored_row(ids[i], n_rows, remap, counters)
        to = i * dim
        clear(flat, to, dim)
        n = 0
        start = np.int64(0)
        first = (row // block_rows) * tiles
        if row >= n_stored:
            outside += 1
        elif row >= 0:
            for tile in range(0, tiles, 32):
                n += popcount(read_bits(bits, first + tile, min(32, tiles - tile)))
            start = (rank(bits, bit_counters, first) * block_rows + (row % block_rows) * n) * block_columns
            n *= block_columns
            if start < 0 or start + n > n_numbers:
                outside += 1
                n = 0
        found[i] = n > 0
        if n == 0:
            continue
        decode(codes, kind, start, n, n_numbers, row_factor(row, row_scales, lattice), numbers, 0)
        used = 0
        for tile in range(tiles):
            if read_bits(bits, first + tile, 1):
                for column in range(block_columns):
                    write(flat, to + tile * block_columns + column, read(numbers, used + column))
                used += block_columns
        scale_columns(flat, to, column_scales)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy")
def gather_list(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts, columns, column_width, n_numbers,
    codes, kind, row_scales, lattice, column_scales, out, found,
):  # fmt: skip
    """A column number an entry: ``per_row`` of them in each row, or counts with a start every ``GROUP`` rows."""
    per_word = 56 // max(column_width, 1)
    column_mask = (np.uint64(1) << np.uint64(column_width)) - np.uint64(1)
    dim = out.shape[1]
    flat = out.reshape(-1)
    numbers = np.empty(dim + SLACK, dtype=np.float32)
    outside = 0
    for i in range(len(ids)):
        row = stored_row(ids[i], n_rows, remap, counters)
        to = i * dim
        clear(flat, to, dim)
        n = np.int64(0)
        start = np.int64(0)
        if row >= n_stored:
            outside += 1
        elif row >= 0:
            start, n = entries_of(row, per_row, counts, count_width, starts)
            if start < 0 or start + n > n_numbers or n > dim:
                outside += 1
                n = np.int64(0)
        found[i] = n > 0
        if n == 0:
            continue
        decode(codes, kind, start, n, n_numbers, row_factor(row, row_scales, lattice), numbers, 0)
        for first in range(0, n, per_word):
            word = read_bits(columns, (start + first) * column_width, 56)
            for j in range(first, min(first + per_word, n)):
                column = np.int64(word & column_mask)
                word >>= np.uint64(column_width)
                if column < dim:
                    write(flat, to + column, read(numbers, j))
                else:
                    outside += 1
        scale_columns(flat, to, column_scales)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy")
def gather_combination(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts, subset_starts, subset_numbers, width,
    n_bits, subset_bits, whole, whole_choose, halves, half_choose, subsets, first_subset, n_numbers, codes, kind,
    row_scales, lattice, column_scales, out, found,
):  # fmt: skip
    """A subset number a chunk of ``width`` columns: ``per_row`` ones in each, or counts a chunk."""
    dim = out.shape[1]
    chunks = -(-dim // width)
    flat = out.reshape(-1)
    numbers = np.empty(dim + SLACK, dtype=np.float32)
    outside = 0
    for i in range(len(ids)):
        row = stored_row(ids[i], n_rows, remap, counters)
        to = i * dim
        n = np.int64(0)
        start = np.int64(0)
        at = np.int64(0)
        size = np.int64(0)
        if row >= n_stored:
            outside += 1
        elif row >= 0:
            if count_width == 0:
                n = np.int64(per_row)
                start = row * n
                size = subset_bits[n]
                at = row * size
            else:
                group = row // GROUP
                start = np.int64(starts[group])
                at = np.int64(subset_starts[group])
                for chunk in range(group * GROUP * chunks, row * chunks):
                    ones = min(np.int64(read_bits(counts, chunk * count_width, count_width)), np.int64(64))
                    start += ones
                    at += subset_bits[ones]
                for chunk in range(row * chunks, (row + 1) * chunks):
                    ones = min(np.int64(read_bits(counts, chunk * count_width, count_width)), np.int64(64))
                    n += ones
                    size += subset_bits[ones]
            if start < 0 or start + n > n_numbers or n > dim or at < 0 or at + size > n_bits:
                outside += 1
                n = np.int64(0)
        found[i] = n > 0
        if n == 0:
            clear(flat, to, dim)
            continue
        decode(codes, kind, start, n, n_numbers, row_factor(row, row_scales, lattice), numbers, 0)
        used = 0
        for chunk in range(chunks):
            ones = n
            if count_width > 0:
                ones = np.int64(read_bits(counts, (row * chunks + chunk) * count_width, count_width))
            low = min(subset_bits[ones], np.int64(32))
            number = read_bits(subset_numbers, at, low) | (
                read_bits(subset_numbers, at + low, subset_bits[ones] - low) << np.uint64(low)
            )
            at += subset_bits[ones]
            mask = unrank(number, ones, whole, whole_choose, halves, half_choose, subsets, first_subset)
            column = chunk * width
            used += spread(mask, min(width, dim - column), numbers, used, flat, to + column)
        scale_columns(flat, to, column_scales)
    return outside

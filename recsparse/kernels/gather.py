"""Rows of packed tables -> dense float32, one kernel a support.

All take the ids (int64, any value), the number of rows and of stored rows, the remap (bitmap and counters; empty when
every row is stored), what the support stores, how many numbers there are and what the values store; then the output,
flat (B * D,), with D, ``found`` (B,): false, and a row of zeros, where an id is out of range or its row is not stored;
then room to work, of :func:`workspace`. They allocate nothing and so need no reference counts, which would cost more
than the work.

They return how many rows lead outside of what is stored, which a damaged file can cause; such rows are zero, and
nothing outside is ever read or written.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from recsparse.kernels.bits import popcount, rank, read, read_bits, trailing_zeros, write
from recsparse.kernels.combinations import unrank
from recsparse.kernels.decode import FP32, SLACK, code_bits, decode
from recsparse.kernels.lanes import LANES, expand, mask_of, prefetch, sum_by_table, sum_integers, write_zeros

Floats = npt.NDArray[np.float32]

BATCH = 32
"""Rows located, and asked for from memory, before any of them is read."""

PLACE = 4
"""Words noted of each row of a batch."""

GROUP_SHIFT = 4
GROUP = 1 << GROUP_SHIFT
"""Rows between two stored starts; in between, counts are added up."""


def workspace(dim: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Room for one row's numbers, and for notes on a batch of rows."""
    return np.empty(dim + SLACK, dtype=np.float32), np.empty(BATCH * PLACE, dtype=np.int64)


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
    whole = dim & ~np.int64(LANES - 1)
    for column in range(0, whole, LANES):
        write_zeros(out, to + column)
    for column in range(whole, dim):
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
def entries_of(row, n_stored, per_row, counts, count_width, starts):  # type: ignore[no-untyped-def]
    """The first number of a stored row of one count, and how many it has."""
    if count_width == 0:
        return row * np.int64(per_row), np.int64(per_row)
    start = np.int64(starts[np.uint64(row >> GROUP_SHIFT)])
    first = row & ~np.int64(GROUP - 1)
    if count_width <= 7 and first + GROUP <= n_stored:
        start += sum_integers(counts, first * count_width, count_width, row - first, starts)
    else:
        for before in range(first, row):
            start += np.int64(read_bits(counts, before * count_width, count_width))
    return start, np.int64(read_bits(counts, row * count_width, count_width))


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def admit(i, row, start, n, fits, n_numbers, dim, kind, codes, row_scales, places, found):  # type: ignore[no-untyped-def]
    """Note where a row of a batch begins and ask for its numbers; returns 1 if that is outside of what is stored."""
    inside = fits and start >= 0 and start + n <= n_numbers and n <= dim
    n = n if inside else np.int64(0)
    found[i] = n > 0
    at = np.uint64(i & (BATCH - 1)) * np.uint64(PLACE)
    places[at] = row
    places[at + np.uint64(1)] = start
    places[at + np.uint64(2)] = n
    if n > 0:
        first = start * code_bits(kind) >> 3
        prefetch(codes, first)
        prefetch(codes, first + (n * code_bits(kind) >> 3))
        if len(row_scales) > 0:
            prefetch(row_scales, row)
    return 0 if inside else 1


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def place_of(i, places):  # type: ignore[no-untyped-def]
    """What :func:`admit` noted of a row: where it is, its first number, how many, and the support's own word."""
    at = np.uint64(i & (BATCH - 1)) * np.uint64(PLACE)
    return places[at], places[at + np.uint64(1)], places[at + np.uint64(2)], places[at + np.uint64(3)]


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def gather_full(  # type: ignore[no-untyped-def]
    ids,
    n_rows,
    n_stored,
    remap,
    counters,
    n_numbers,
    codes,
    kind,
    row_scales,
    lattice,
    column_scales,
    flat,
    dim,
    found,
    numbers,
    places,
):
    """Every entry of a stored row is stored."""
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        for i in range(batch, end):
            row = stored_row(ids[i], n_rows, remap, counters)
            n = np.int64(dim if row >= 0 else 0)
            outside += admit(i, row, row * n, n, row < n_stored, n_numbers, dim, kind, codes, row_scales, places, found)
        for i in range(batch, end):
            row, start, n, _ = place_of(i, places)
            if n == 0:
                clear(flat, i * dim, dim)
                continue
            decode(codes, kind, start, dim, n_numbers, row_factor(row, row_scales, lattice), flat, i * dim)
            scale_columns(flat, i * dim, column_scales)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def gather_bitmap(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, bits, bit_counters, n_numbers, codes, kind, row_scales, lattice,
    column_scales, flat, dim, found, numbers, places,
):  # fmt: skip
    """A bit an entry; values row after row."""
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        for i in range(batch, end):
            row = stored_row(ids[i], n_rows, remap, counters)
            n = np.int64(0)
            start = np.int64(0)
            if 0 <= row < n_stored:
                first = row * dim
                for column in range(0, dim, 56):
                    n += popcount(read_bits(bits, first + column, min(56, dim - column)))
                start = rank(bits, bit_counters, first)
            outside += admit(i, row, start, n, row < n_stored, n_numbers, dim, kind, codes, row_scales, places, found)
        for i in range(batch, end):
            row, start, n, _ = place_of(i, places)
            to = i * dim
            if n == 0:
                clear(flat, to, dim)
                continue
            if kind != FP32:
                decode(codes, kind, start, n, n_numbers, row_factor(row, row_scales, lattice), numbers, 0)
            used = np.int64(0)
            for column in range(0, dim, 48):
                width = min(48, dim - column)
                mask = read_bits(bits, row * dim + column, width)
                if kind == FP32:
                    used += spread(mask, width, codes, start + used, flat, to + column)
                else:
                    used += spread(mask, width, numbers, used, flat, to + column)
            scale_columns(flat, to, column_scales)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def gather_blocks(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, block_rows, block_columns, bits, bit_counters, n_numbers, codes, kind,
    row_scales, lattice, column_scales, flat, dim, found, numbers, places,
):  # fmt: skip
    """A bit a tile of ``block_rows`` x ``block_columns``; values row after row."""
    tiles = dim // block_columns
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        for i in range(batch, end):
            row = stored_row(ids[i], n_rows, remap, counters)
            n = np.int64(0)
            start = np.int64(0)
            if 0 <= row < n_stored:
                above = row // block_rows if block_rows > 1 else row
                first = above * tiles
                for tile in range(0, tiles, 56):
                    n += popcount(read_bits(bits, first + tile, min(56, tiles - tile)))
                n *= block_columns
                start = rank(bits, bit_counters, first) * block_rows * block_columns + (row - above * block_rows) * n
            outside += admit(i, row, start, n, row < n_stored, n_numbers, dim, kind, codes, row_scales, places, found)
        for i in range(batch, end):
            row, start, n, _ = place_of(i, places)
            to = i * dim
            clear(flat, to, dim)
            if n == 0:
                continue
            decode(codes, kind, start, n, n_numbers, row_factor(row, row_scales, lattice), numbers, 0)
            first = (row // block_rows if block_rows > 1 else row) * tiles
            used = np.int64(0)
            for tile in range(0, tiles, 56):
                mask = read_bits(bits, first + tile, min(56, tiles - tile))
                while mask != 0:
                    column_at = to + (tile + trailing_zeros(mask)) * block_columns
                    mask &= mask - np.uint64(1)
                    for column in range(block_columns):
                        write(flat, column_at + column, read(numbers, used + column))
                    used += block_columns
            scale_columns(flat, to, column_scales)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def gather_list(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts, columns, column_width, n_numbers,
    codes, kind, row_scales, lattice, column_scales, flat, dim, found, numbers, places,
):  # fmt: skip
    """A column number an entry: ``per_row`` of them in each row, or counts with a start every ``GROUP`` rows."""
    per_word = 56 // max(column_width, 1)
    column_mask = (np.uint64(1) << np.uint64(column_width)) - np.uint64(1)
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        for i in range(batch, end):
            row = stored_row(ids[i], n_rows, remap, counters)
            n = np.int64(0)
            start = np.int64(0)
            if 0 <= row < n_stored:
                start, n = entries_of(row, n_stored, per_row, counts, count_width, starts)
                prefetch(columns, start * column_width >> 3)
            outside += admit(i, row, start, n, row < n_stored, n_numbers, dim, kind, codes, row_scales, places, found)
        for i in range(batch, end):
            row, start, n, _ = place_of(i, places)
            to = i * dim
            if n == 0:
                clear(flat, to, dim)
                continue
            decode(codes, kind, start, n, n_numbers, row_factor(row, row_scales, lattice), numbers, 0)
            if column_width <= 7 and start + n + LANES <= n_numbers:  # columns become masks, sixteen at a time
                used = np.int64(0)
                for column in range(0, dim, 64):
                    mask = np.uint64(0)
                    for first in range(0, n, LANES):
                        mask |= mask_of(columns, (start + first) * column_width, column_width, n - first, column)
                    used += spread(mask, min(64, dim - column), numbers, used, flat, to + column)
                scale_columns(flat, to, column_scales)
                continue
            clear(flat, to, dim)
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


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def subsets_of(row, n_stored, chunks, per_row, counts, count_width, starts, subset_starts, subset_bits, subset_sums):  # type: ignore[no-untyped-def]
    """First number and how many, and first bit and how many of the subset numbers, of a stored row."""
    if count_width == 0:
        n = np.int64(per_row)
        return row * n, n, row * subset_bits[n], subset_bits[n]
    group = row >> GROUP_SHIFT
    start = np.int64(starts[np.uint64(group)])
    at = np.int64(subset_starts[np.uint64(group)])
    chunk = group * GROUP * chunks
    end = row * chunks
    if (group + 1) * GROUP <= n_stored:  # both sums at once, in the halves of a word
        sums = np.int64(0)
        while chunk < end:
            sums += sum_by_table(counts, chunk * count_width, count_width, end - chunk, subset_sums)
            chunk += LANES
        start += sums & np.int64(0xFFFFFFFF)
        at += sums >> 32
        chunk = end
    while chunk < end:
        ones = min(np.int64(read_bits(counts, chunk * count_width, count_width)), np.int64(64))
        start += ones
        at += subset_bits[ones]
        chunk += 1
    n = np.int64(0)
    size = np.int64(0)
    for chunk in range(row * chunks, (row + 1) * chunks):
        ones = min(np.int64(read_bits(counts, chunk * count_width, count_width)), np.int64(64))
        n += ones
        size += subset_bits[ones]
    return start, n, at, size


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def gather_combination(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts, subset_starts, subset_numbers, width,
    n_bits, subset_bits, subset_sums, whole, whole_choose, halves, half_choose, subsets, first_subset, n_numbers, codes,
    kind, row_scales, lattice, column_scales, flat, dim, found, numbers, places,
):  # fmt: skip
    """A subset number a chunk of ``width`` columns: ``per_row`` ones in each, or counts a chunk."""
    chunks = -(-dim // width)
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        for i in range(batch, end):
            row = stored_row(ids[i], n_rows, remap, counters)
            n = np.int64(0)
            start = np.int64(0)
            fits = row < n_stored
            if 0 <= row < n_stored:
                start, n, at, size = subsets_of(
                    row, n_stored, chunks, per_row, counts, count_width, starts, subset_starts, subset_bits, subset_sums
                )
                fits = at >= 0 and at + size <= n_bits
                prefetch(subset_numbers, at >> 3)
                places[np.uint64(i & (BATCH - 1)) * np.uint64(PLACE) + np.uint64(3)] = at
            outside += admit(i, row, start, n, fits, n_numbers, dim, kind, codes, row_scales, places, found)
        for i in range(batch, end):
            row, start, n, at = place_of(i, places)
            to = i * dim
            if n == 0:
                clear(flat, to, dim)
                continue
            if kind != FP32:
                decode(codes, kind, start, n, n_numbers, row_factor(row, row_scales, lattice), numbers, 0)
            used = np.int64(0)
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
                columns = min(width, dim - column)
                if kind == FP32:  # a damaged mask may have more ones than the row, but never more than columns
                    if start + used + columns <= n_numbers or start + used + popcount(mask) <= n_numbers:
                        used += spread(mask, columns, codes, start + used, flat, to + column)
                else:
                    used += spread(mask, columns, numbers, used, flat, to + column)
            scale_columns(flat, to, column_scales)
    return outside

"""Rows of packed tables -> dense float32, one kernel a support.

All take the ids (int64, any value), the number of rows and of stored rows, the remap (bitmap and counters; empty when
every row is stored), what the support stores, how many numbers there are and what the values store; then the output,
flat (B * D,), with D, ``found`` (B,): false, and a row of zeros, where an id is out of range or its row is not stored;
then room to work, of :func:`recsparse.kernels.batches.workspace`. They allocate nothing and so need no reference
counts, which would cost more than the work.

They return how many rows lead outside of what is stored, which a damaged file can cause; such rows are zero, and
nothing outside is ever read or written.
"""

import numba as nb
import numpy as np

from recsparse.kernels.batches import (
    BATCH,
    clear,
    place_of,
    row_factor,
    scale_columns,
    spread,
    spread_rows,
)
from recsparse.kernels.bits import read, read_bits, write
from recsparse.kernels.combinations import CHUNK
from recsparse.kernels.decode import ONES, decode
from recsparse.kernels.lanes import LANES, mask_of
from recsparse.kernels.locate import locate_bitmap, locate_blocks, locate_combination, locate_full, locate_list


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def gather_full(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, n_numbers, codes, kind, row_scales, lattice, column_scales, flat, dim,
    found, numbers, places,
):  # fmt: skip
    """Every entry of a stored row is stored."""
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        outside += locate_full(
            batch, end, ids, n_rows, n_stored, remap, counters, n_numbers, codes, kind, row_scales, dim, found, places
        )
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
        outside += locate_bitmap(
            batch, end, ids, n_rows, n_stored, remap, counters, bits, bit_counters, n_numbers, codes,
            kind, row_scales, dim, found, places,
        )  # fmt: skip
        outside += spread_rows(
            batch, end, CHUNK, n_numbers, codes, kind, row_scales, lattice, column_scales, flat, dim, numbers, places
        )
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def gather_blocks(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, block_rows, block_columns, tile_masks, bits, bit_counters, n_numbers,
    codes, kind, row_scales, lattice, column_scales, flat, dim, found, numbers, places,
):  # fmt: skip
    """A bit a tile of ``block_rows`` x ``block_columns``; values row after row."""
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        outside += locate_blocks(
            batch, end, ids, n_rows, n_stored, remap, counters, block_rows, block_columns, tile_masks,
            bits, bit_counters, n_numbers, codes, kind, row_scales, dim, found, places,
        )  # fmt: skip
        outside += spread_rows(
            batch, end, CHUNK, n_numbers, codes, kind, row_scales, lattice, column_scales, flat, dim, numbers, places
        )
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def gather_list(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts, packed, column_width, n_numbers,
    codes, kind, row_scales, lattice, column_scales, flat, dim, found, numbers, places,
):  # fmt: skip
    """A column number an entry: ``per_row`` of them in each row, or counts with a start every ``GROUP`` rows."""
    per_word = 56 // max(column_width, 1)
    column_mask = (np.uint64(1) << np.uint64(column_width)) - np.uint64(1)
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        outside += locate_list(
            batch, end, ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts,
            packed, column_width, n_numbers, codes, kind, row_scales, dim, found, places,
        )  # fmt: skip
        for i in range(batch, end):
            row, start, n, _ = place_of(i, places)
            to = i * dim
            if n == 0:
                clear(flat, to, dim)
                continue
            factor = row_factor(row, row_scales, lattice)
            decode(codes, kind, start, n, n_numbers, factor, numbers, 0)
            if column_width <= 7 and start + n + LANES <= n_numbers:  # columns become masks, sixteen at a time
                used = np.int64(0)
                for column in range(0, dim, CHUNK):
                    mask = np.uint64(0)
                    for first in range(0, n, LANES):
                        mask |= mask_of(packed, (start + first) * column_width, column_width, n - first, column)
                    width = min(CHUNK, dim - column)
                    used = spread(mask, width, codes, ONES, start, factor, numbers, used, flat, to + column)
                scale_columns(flat, to, column_scales)
                continue
            clear(flat, to, dim)
            for first in range(0, n, per_word):
                word = read_bits(packed, (start + first) * column_width, 56)
                for j in range(first, min(first + per_word, n)):
                    column = np.int64(word & column_mask)
                    word >>= np.uint64(column_width)
                    if column < dim:
                        write(flat, to + column, read(numbers, j))
                    else:
                        outside += 1
            scale_columns(flat, to, column_scales)
    return outside


@nb.njit(nogil=True, cache=True, error_model="numpy", _nrt=False)
def gather_combination(  # type: ignore[no-untyped-def]
    ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts, subset_starts, subset_numbers,
    width, n_bits, subset_bits, pair_sums, whole, whole_choose, halves, half_choose, subsets, first_subset,
    n_numbers, codes, kind, row_scales, lattice, column_scales, flat, dim, found, numbers, places,
):  # fmt: skip
    """A subset number a chunk of ``width`` columns: ``per_row`` ones in each, or counts a chunk."""
    outside = 0
    for batch in range(0, len(ids), BATCH):
        end = min(batch + BATCH, len(ids))
        outside += locate_combination(
            batch, end, ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts,
            subset_starts, subset_numbers, width, n_bits, subset_bits, pair_sums, whole, whole_choose,
            halves, half_choose, subsets, first_subset, n_numbers, codes, kind, row_scales, dim, found,
            places,
        )  # fmt: skip
        outside += spread_rows(
            batch, end, width, n_numbers, codes, kind, row_scales, lattice, column_scales, flat, dim, numbers, places
        )
    return outside

"""Where a batch of rows of a packed table is stored: what all kernels that read one do first, for each support.

All take the batch's bounds, the ids, the number of rows and of stored rows, the remap, what the support stores, how
many numbers there are and what of the values says where one begins; then the columns, ``found`` and the notes, which
:func:`recsparse.kernels.batches.place_of` reads, and :func:`recsparse.kernels.batches.mask_at` where the support
has masks. They return how many rows lead outside of what is stored.
"""

import numba as nb
import numpy as np

from recsparse.kernels.batches import (
    BATCH,
    PLACE,
    admit,
    look_ahead,
    mark,
    mask_at,
    note_rows,
    noted_row,
    place_of,
    unmark,
)
from recsparse.kernels.bits import RANK_SHIFT, load64, popcount, rank, read_bits, read_word, trailing_zeros
from recsparse.kernels.combinations import CHUNK, unrank
from recsparse.kernels.decode import code_bits
from recsparse.kernels.lanes import prefetch, sum_integers

GROUP_SHIFT = 4
GROUP = 1 << GROUP_SHIFT
"""Rows between two stored starts; in between, counts are added up."""


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def locate_full(  # type: ignore[no-untyped-def]
    batch, end, ids, n_rows, n_stored, remap, counters, n_numbers, codes, kind, row_scales, dim, found, places
):  # fmt: skip
    """Every entry of a stored row is stored."""
    outside = 0
    note_rows(batch, end, ids, n_rows, remap, counters, codes, dim * code_bits(kind), places)
    for i in range(batch, end):
        ahead = ids[np.uint64(min(i + BATCH, len(ids) - 1))]
        look_ahead(ahead, remap, counters, remap, 0, remap, 0)
        row = noted_row(i, ids, n_rows, remap, counters, places)
        n = np.int64(dim if row >= 0 else 0)
        outside += admit(i, row, row * n, n, row < n_stored, n_numbers, dim, kind, codes, row_scales, places, found)
    return outside


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def locate_bitmap(  # type: ignore[no-untyped-def]
    batch, end, ids, n_rows, n_stored, remap, counters, bits, bit_counters, n_numbers, codes, kind, row_scales,
    dim, found, places,
):  # fmt: skip
    """A bit an entry."""
    outside = 0
    note_rows(batch, end, ids, n_rows, remap, counters, bits, dim, places)
    for i in range(batch, end):
        ahead = ids[np.uint64(min(i + BATCH, len(ids) - 1))]
        tile = ahead * dim
        ranks = (tile >> RANK_SHIFT) * bit_counters.itemsize
        look_ahead(ahead, remap, counters, bits, tile >> 3, bit_counters, ranks)
        row = noted_row(i, ids, n_rows, remap, counters, places)
        n = np.int64(0)
        start = np.int64(0)
        if 0 <= row < n_stored:
            first = row * dim
            at = np.uint64(mask_at(i, dim))
            for column in range(0, dim, CHUNK):
                mask = read_word(bits, first + column, min(CHUNK, dim - column))
                n += popcount(mask)
                places[at] = np.int64(mask)
                at += np.uint64(1)
            start = rank(bits, bit_counters, first)
        outside += admit(i, row, start, n, row < n_stored, n_numbers, dim, kind, codes, row_scales, places, found)
    return outside


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def mark_narrow(places, at, bits, first, tiles, columns, tile_masks):  # type: ignore[no-untyped-def]
    """Note the masks of a row of tiles of at most eight columns, a word at a time; returns the ones there are."""
    ones = np.int64(0)
    mask = np.uint64(0)
    place = np.uint64(at)
    bit = np.int64(0)
    for tile in range(0, tiles, 8):
        some = read_bits(bits, first + tile, min(8, tiles - tile))
        ones += popcount(some)
        entries = tile_masks[some]
        mask |= entries << np.uint64(bit)
        bit += 8 * columns
        if bit >= CHUNK:
            places[place] = np.int64(mask)
            place += np.uint64(1)
            bit -= CHUNK
            mask = (entries >> np.uint64(1)) >> np.uint64(8 * columns - 1 - bit)  # those of the next word
    if place < np.uint64(at + -(-tiles * columns // CHUNK)):
        places[place] = np.int64(mask)
    return ones * columns


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def mark_wide(places, at, bits, first, tiles, columns, dim):  # type: ignore[no-untyped-def]
    """Note the masks of a row of tiles of more than eight columns; returns the ones there are."""
    ones = np.int64(0)
    unmark(places, at, dim)
    for tile in range(0, tiles, 8):
        some = read_bits(bits, first + tile, min(8, tiles - tile))
        ones += popcount(some)
        while some != 0:
            column = (tile + trailing_zeros(some)) * columns
            some &= some - np.uint64(1)
            for part in range(0, columns, 32):
                width = min(columns - part, 32)
                mark(places, at, (np.uint64(1) << np.uint64(width)) - np.uint64(1), column + part, width)
    return ones * columns


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def locate_blocks(  # type: ignore[no-untyped-def]
    batch, end, ids, n_rows, n_stored, remap, counters, block_rows, block_columns, tile_masks, bits, bit_counters,
    n_numbers, codes, kind, row_scales, dim, found, places,
):  # fmt: skip
    """A bit a tile of ``block_rows`` x ``block_columns``."""
    tiles = dim // block_columns
    outside = 0
    note_rows(batch, end, ids, n_rows, remap, counters, bits, tiles // block_rows, places)
    for i in range(batch, end):
        ahead = ids[np.uint64(min(i + BATCH, len(ids) - 1))]
        tile = (ahead // block_rows if block_rows > 1 else ahead) * tiles
        ranks = (tile >> RANK_SHIFT) * bit_counters.itemsize
        look_ahead(ahead, remap, counters, bits, tile >> 3, bit_counters, ranks)
        row = noted_row(i, ids, n_rows, remap, counters, places)
        n = np.int64(0)
        start = np.int64(0)
        if 0 <= row < n_stored:
            above = row // block_rows if block_rows > 1 else row
            first = above * tiles
            if block_columns <= 8:
                n = mark_narrow(places, mask_at(i, dim), bits, first, tiles, block_columns, tile_masks)
            else:
                n = mark_wide(places, mask_at(i, dim), bits, first, tiles, block_columns, dim)
            start = rank(bits, bit_counters, first) * block_rows * block_columns + (row - above * block_rows) * n
        outside += admit(i, row, start, n, row < n_stored, n_numbers, dim, kind, codes, row_scales, places, found)
    return outside


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def entries_of(row, n_stored, per_row, counts, count_width, starts):  # type: ignore[no-untyped-def]
    """The first number of a stored row of one count, and how many it has."""
    if count_width == 0:
        return row * np.int64(per_row), np.int64(per_row)
    start = np.int64(starts[np.uint64(row >> GROUP_SHIFT)])
    first = row & ~np.int64(GROUP - 1)
    if count_width <= 7 and first + GROUP <= n_stored:
        start += sum_integers(counts, first * count_width, count_width, row - first)
    else:
        for before in range(first, row):
            start += np.int64(read_bits(counts, before * count_width, count_width))
    return start, np.int64(read_bits(counts, row * count_width, count_width))


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def locate_list(  # type: ignore[no-untyped-def]
    batch, end, ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts, packed,
    column_width, n_numbers, codes, kind, row_scales, dim, found, places,
):  # fmt: skip
    """A column number an entry: ``per_row`` of them in each row, or counts with a start every ``GROUP`` rows."""
    outside = 0
    note_rows(batch, end, ids, n_rows, remap, counters, counts, count_width, places)
    for i in range(batch, end):
        ahead = ids[np.uint64(min(i + BATCH, len(ids) - 1))]
        group = (ahead >> GROUP_SHIFT) * starts.itemsize
        look_ahead(ahead, remap, counters, counts, ahead * count_width >> 3, starts, group)
        row = noted_row(i, ids, n_rows, remap, counters, places)
        n = np.int64(0)
        start = np.int64(0)
        if 0 <= row < n_stored:
            start, n = entries_of(row, n_stored, per_row, counts, count_width, starts)
            prefetch(packed, start * column_width >> 3)
        outside += admit(i, row, start, n, row < n_stored, n_numbers, dim, kind, codes, row_scales, places, found)
    return outside


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def sums_of(counts, at, words, before, after, count_width, pair_sums):  # type: ignore[no-untyped-def]
    """Ones and subset bits of the first ``before`` counts of some words of eight counts, or of those ``after`` them.

    The words begin at byte ``at``. Their pairs are looked up; counts on the other side are taken for zeros.
    """
    width = np.uint64(count_width)
    pair = width + width
    first = (np.uint64(1) << pair) - np.uint64(1)
    flip = ((np.uint64(1) << (width << np.uint64(3))) - np.uint64(1)) & np.uint64(-after)
    left = np.uint64(before)
    ones = np.int64(0)
    bits = np.int64(0)
    for _ in range(words):
        some = min(left, np.uint64(8))
        left -= some
        word = load64(counts, at) & (((np.uint64(1) << (some * width)) - np.uint64(1)) ^ flip)
        sums = np.int64(pair_sums[word & first])
        word >>= pair
        sums += np.int64(pair_sums[word & first])
        word >>= pair
        sums += np.int64(pair_sums[word & first])
        sums += np.int64(pair_sums[word >> pair])
        ones += sums & 0xFFFF
        bits += sums >> 16
        at += count_width
    return ones, bits


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def subsets_of(  # type: ignore[no-untyped-def]
    row, n_stored, chunks, width, per_row, counts, count_width, starts, subset_starts, subset_numbers, subset_bits,
    pair_sums,
):  # fmt: skip
    """First number and how many, and first bit and how many of the subset numbers, of a stored row."""
    if count_width == 0:
        n = np.int64(per_row)
        prefetch(subset_numbers, row * subset_bits[n] >> 3)
        return row * n, n, row * subset_bits[n], subset_bits[n]
    half = row >> (GROUP_SHIFT - 1)  # eight rows, and so as many words of counts as a row has chunks
    after = half & 1
    before = (row & (GROUP // 2 - 1)) * chunks
    group = np.uint64((half + 1) >> 1)  # the nearer start is the next group's in a group's second half
    if (half + 1) * (GROUP // 2) >= n_stored:  # there is none, or fewer words than chunks
        half -= after
        before += after * 8 * chunks
        group -= np.uint64(after)
        words = (before + 7) >> 3
        after = np.int64(0)
        ones, bits = sums_of(counts, half * chunks * count_width, words, before, after, count_width, pair_sums)
    else:
        ones, bits = sums_of(counts, half * chunks * count_width, chunks, before, after, count_width, pair_sums)
    start = np.int64(starts[group]) + (ones ^ -after) + after
    at = np.int64(subset_starts[group]) + (bits ^ -after) + after
    n = np.int64(0)
    size = np.int64(0)
    for chunk in range(row * chunks, (row + 1) * chunks):
        prefetch(subset_numbers, (at + size) >> 3)
        ones = min(np.int64(read_bits(counts, chunk * count_width, count_width)), width)
        n += ones
        size += subset_bits[np.uint64(ones)]
    return start, n, at, size


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def note_subsets(  # type: ignore[no-untyped-def]
    batch, end, chunks, width, counts, count_width, subset_numbers, subset_bits, dim, places
):  # fmt: skip
    """Note the subset numbers of the rows of a batch, and their ones, for :func:`unrank`."""
    for i in range(batch, end):
        row, _, n, at = place_of(i, places)
        if row < 0:
            continue
        note = np.uint64(mask_at(i, dim))
        for chunk in range(row * chunks, (row + 1) * chunks):
            ones = n
            if chunks > 1:
                ones = min(np.int64(read_bits(counts, chunk * count_width, count_width)), width)
            size = subset_bits[np.uint64(ones)]
            places[note] = np.int64(read_word(subset_numbers, at, size))
            places[note + np.uint64(BATCH * chunks)] = ones
            note += np.uint64(1)
            at += size


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def locate_combination(  # type: ignore[no-untyped-def]
    batch, end, ids, n_rows, n_stored, remap, counters, per_row, counts, count_width, starts, subset_starts,
    subset_numbers, width, n_bits, subset_bits, pair_sums, whole, whole_choose, halves, half_choose, subsets,
    first_subset, n_numbers, codes, kind, row_scales, dim, found, places,
):  # fmt: skip
    """A subset number a chunk of ``width`` columns: ``per_row`` ones in each, or counts a chunk."""
    chunks = -(-dim // width)
    outside = 0
    note_rows(batch, end, ids, n_rows, remap, counters, counts, chunks * count_width, places)
    for i in range(batch, end):
        ahead = ids[np.uint64(min(i + BATCH, len(ids) - 1))]
        group = (ahead >> GROUP_SHIFT) * starts.itemsize
        look_ahead(ahead, remap, counters, counts, ahead * chunks * count_width >> 3, starts, group)
        prefetch(subset_starts, group)
        row = noted_row(i, ids, n_rows, remap, counters, places)
        n = np.int64(0)
        start = np.int64(0)
        fits = row < n_stored
        if 0 <= row < n_stored:
            if chunks == 1:  # which leaves no loops over chunks
                start, n, at, size = subsets_of(
                    row, n_stored, 1, width, per_row, counts, count_width, starts, subset_starts, subset_numbers,
                    subset_bits, pair_sums,
                )  # fmt: skip
            else:
                start, n, at, size = subsets_of(
                    row, n_stored, chunks, width, per_row, counts, count_width, starts, subset_starts,
                    subset_numbers, subset_bits, pair_sums,
                )  # fmt: skip
            fits = 0 <= at <= n_bits - size
            places[np.uint64(i & (BATCH - 1)) * np.uint64(PLACE) + np.uint64(3)] = at
        outside += admit(i, row, start, n, fits, n_numbers, dim, kind, codes, row_scales, places, found)
    if chunks == 1:
        note_subsets(batch, end, 1, width, counts, count_width, subset_numbers, subset_bits, dim, places)
    else:
        note_subsets(batch, end, chunks, width, counts, count_width, subset_numbers, subset_bits, dim, places)
    for group in range(chunks):
        at = BATCH * (PLACE + group)
        unrank(places, at, at + BATCH * chunks, whole, whole_choose, halves, half_choose, subsets, first_subset)
    return outside

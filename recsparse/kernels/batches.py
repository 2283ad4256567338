"""A batch of rows of a packed table: where each is stored, its masks, and its numbers spread over its columns.

Rows of a batch are located, and asked for from memory, before any of them is read. None of this allocates.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from recsparse.kernels.bits import RANK_SHIFT, popcount, rank, read, read_bits, write
from recsparse.kernels.combinations import AT_ONCE, CHUNK
from recsparse.kernels.decode import BF16, FP16, INT8, SLACK, code_bits, decode, decode_one, expand
from recsparse.kernels.expansion import expand_singles, expand_wide_bfloats, expand_wide_bytes, expand_wide_halves
from recsparse.kernels.lanes import LANES, prefetch, write_zeros

Floats = npt.NDArray[np.float32]

BATCH = AT_ONCE
"""Rows located, and asked for from memory, before any of them is read."""

PLACE = 4
"""Words noted of each row of a batch, besides its masks and their ones."""


def workspace(dim: int, rows: int = 1) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Room for the numbers of one row or more, and for notes on a batch of rows."""
    words = BATCH * (PLACE + 2 * -(-dim // CHUNK))
    return np.empty(rows * dim + SLACK, dtype=np.float32), np.zeros(words, dtype=np.int64)


def listing_workspace(dim: int) -> tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """:func:`workspace` for a batch of rows' numbers, and room for their columns."""
    return *workspace(dim, BATCH), np.empty(BATCH * dim + CHUNK, dtype=np.uint32)


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
def note_rows(batch, end, ids, n_rows, remap, counters, first, width, places):  # type: ignore[no-untyped-def]
    """Note where a batch's rows are stored, if there is a remap, and ask for their ``width`` bits of the support.

    A loop of its own: what comes after a rank then need not wait for it.
    """
    if len(counters) == 0:
        return
    for i in range(batch, end):
        row = stored_row(ids[np.uint64(i)], n_rows, remap, counters)
        prefetch(first, row * width >> 3)
        places[np.uint64(i & (BATCH - 1)) * np.uint64(PLACE)] = row


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def noted_row(i, ids, n_rows, remap, counters, places):  # type: ignore[no-untyped-def]
    """:func:`stored_row`, after :func:`note_rows`."""
    if len(counters) == 0:
        return stored_row(ids[np.uint64(i)], n_rows, remap, counters)
    return places[np.uint64(i & (BATCH - 1)) * np.uint64(PLACE)]


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def look_ahead(row, remap, counters, first, at, second, then):  # type: ignore[no-untyped-def]
    """Ask for what locating a row of the next batch reads: the remap, or without one these bytes of the support."""
    if len(counters) > 0:
        prefetch(remap, row >> 3)
        prefetch(counters, (row >> RANK_SHIFT) * counters.itemsize)
    else:
        prefetch(first, at)
        prefetch(second, then)


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
def spread(mask, width, codes, kind, start, factor, numbers, used, out, to):  # type: ignore[no-untyped-def]
    """Spread numbers over the ones of a ``width`` <= 64 bit mask, zeros elsewhere; returns how many are used now.

    They come from number ``start + used`` on of ``codes``, or where those are packed from ``numbers[used:]``.
    """
    if kind == INT8 and width == CHUNK:
        expand_wide_bytes(codes, start + used, factor, mask, out, to)
        return used + popcount(mask)
    column = 0
    while kind in (FP16, BF16) and column + 2 * LANES <= width:
        bits = (mask >> np.uint64(column)) & np.uint64((1 << 2 * LANES) - 1)
        if kind == FP16:
            expand_wide_halves(codes, start + used, factor, bits, out, to + column)
        else:
            expand_wide_bfloats(codes, start + used, factor, bits, out, to + column)
        used += popcount(bits)
        column += 2 * LANES
    while column + LANES <= width:
        bits = (mask >> np.uint64(column)) & np.uint64((1 << LANES) - 1)
        if kind < INT8:
            expand_singles(numbers, used, factor, bits, out, to + column)
        else:
            expand(codes, kind, start + used, factor, bits, out, to + column)
        used += popcount(bits)
        column += LANES
    while column < width:
        number = np.float32(0)
        if (mask >> np.uint64(column)) & np.uint64(1):
            number = read(numbers, used) if kind < INT8 else decode_one(codes, kind, start + used, factor)
            used += 1
        write(out, to + column, number)
        column += 1
    return used


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def admit(i, row, start, n, fits, n_numbers, dim, kind, codes, row_scales, places, found):  # type: ignore[no-untyped-def]
    """Note where a row of a batch begins and ask for its numbers; returns 1 if that is outside of what is stored.

    The row is noted as -1 then, as one that is not stored.
    """
    inside = fits and 0 <= start <= n_numbers - n and n <= dim  # a start of 2^63 - 1 would pass as start + n
    n = n if inside else np.int64(0)
    found[np.uint64(i)] = n > 0
    at = np.uint64(i & (BATCH - 1)) * np.uint64(PLACE)
    places[at] = row if inside else np.int64(-1)
    places[at + np.uint64(1)] = start
    places[at + np.uint64(2)] = n
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


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def drop(i, places):  # type: ignore[no-untyped-def]
    """Note that a row has no numbers after all."""
    places[np.uint64(i & (BATCH - 1)) * np.uint64(PLACE) + np.uint64(2)] = 0


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def mask_at(i, dim):  # type: ignore[no-untyped-def]
    """Where the masks of a batch's row are noted, a word every ``CHUNK`` columns."""
    return np.int64(BATCH * PLACE) + (i & (BATCH - 1)) * -(-dim // CHUNK)


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def unmark(places, at, dim):  # type: ignore[no-untyped-def]
    """Empty the masks at ``at``."""
    for word in range(at, at + -(-dim // CHUNK)):
        places[np.uint64(word)] = 0


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def mark(places, at, bits, first, width):  # type: ignore[no-untyped-def]
    """Add ``width`` <= 64 bits from column ``first`` on to the masks at ``at``."""
    word, bit = np.uint64(at + (first >> 6)), np.uint64(first & 63)
    places[word] |= np.int64(bits << bit)
    if np.int64(bit) + width > CHUNK:
        places[word + np.uint64(1)] |= np.int64(bits >> (np.uint64(CHUNK) - bit))


@nb.njit(forceinline=True, cache=True, error_model="numpy")
def spread_rows(  # type: ignore[no-untyped-def]
    batch, end, width, n_numbers, codes, kind, row_scales, lattice, column_scales, flat, dim, numbers, places
):  # fmt: skip
    """Write a batch's rows, whose places and masks of ``width`` columns are noted; returns how many lead outside."""
    outside = 0
    for i in range(batch, end):
        row, start, n, _ = place_of(i, places)
        to = i * dim
        if row < 0:
            clear(flat, to, dim)
            continue
        factor = row_factor(row, row_scales, lattice)
        if kind < INT8:
            decode(codes, kind, start, n, n_numbers, factor, numbers, 0)
        used = np.int64(0)
        at = np.uint64(mask_at(i, dim))
        column = 0
        while column < dim:  # a range would divide
            mask = np.uint64(places[at])
            if start + used + popcount(mask) > n_numbers:
                outside += 1
                mask = np.uint64(0)
            columns = min(width, dim - column)
            used = spread(mask, columns, codes, kind, start, factor, numbers, used, flat, to + column)
            at += np.uint64(1)
            column += width
        scale_columns(flat, to, column_scales)
    return outside

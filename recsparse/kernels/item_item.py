"""The loops of item-item models: the Gram matrix of a sparse X, and EASE's weights from its inverse."""

import numba as nb

TILE = 64
"""Rows and columns mirrored together, so that both triangles' pieces stay in cache."""


@nb.njit(nogil=True, cache=True)
def gram_lower(start, stop, user_ptr, items, values, item_ptr, users, item_values, out):  # type: ignore[no-untyped-def]
    """Add rows [start, stop) of the lower triangle of ``X' X`` to ``out``, from X by users and X by items.

    Items ascend within a user, so each user's inner loop ends at the diagonal. Cost: sum over users of n_u^2 / 2.
    """
    for row in range(start, stop):
        out_row = out[row]
        for entry in range(item_ptr[row], item_ptr[row + 1]):
            user = users[entry]
            value = item_values[entry]
            for other in range(user_ptr[user], user_ptr[user + 1]):
                if items[other] > row:
                    break
                out_row[items[other]] += value * values[other]


@nb.njit(nogil=True, cache=True)
def weights_from_inverse(start, stop, diagonal, out):  # type: ignore[no-untyped-def]
    """Turn the lower triangle of ``P`` in ``out`` into ``B = -P / diag(P)`` (by columns), zero on the diagonal.

    Tile rows [start, stop): each tile below the diagonal is read once and written to both triangles.
    """
    n_items = len(out)
    for tile_row in range(start, stop):
        row_end = min((tile_row + 1) * TILE, n_items)
        for tile_column in range(tile_row + 1):
            for row in range(tile_row * TILE, row_end):
                for column in range(tile_column * TILE, min((tile_column + 1) * TILE, row)):
                    value = -out[row, column]
                    out[row, column] = value / diagonal[column]
                    out[column, row] = value / diagonal[row]
        for row in range(tile_row * TILE, row_end):
            out[row, row] = 0

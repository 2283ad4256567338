"""Layout -> layout and value type -> value type, without a dense table in between."""

from typing import Any

import numpy as np

from recsparse.errors import DataError, FormatError
from recsparse.tables.bits import DAMAGED
from recsparse.tables.fallback import returns_zeros
from recsparse.tables.mask import Mask
from recsparse.tables.pack import assemble, lay_out, settle
from recsparse.tables.packed import PackedTable
from recsparse.tables.supports import Full
from recsparse.tables.values import Floats, Scales, decode_codes, with_scales


def convert(
    table: PackedTable, *, layout: str | None = None, value_type: str | None = None, scales: Scales | None = None,
    n_jobs: int | None = None,
) -> PackedTable:  # fmt: skip
    """The same table in another layout ("auto" for the smallest), another value type or other scales, or all of it.

    A change of layout keeps codes and scales as they are, so every id returns what it did. The fallback comes along.
    Of the zeros in a dense or rows layout only those are kept that tell a row of zeros from one with the fallback.

    Raises:
        DataError: the layout cannot hold the table's entries, or tell its pruned rows, or the table is not packed.
        ConfigError: an unknown layout, value type or kind of scale.

    Example:
        >>> import numpy as np
        >>> from recsparse.tables import pack
        >>> convert(pack(np.eye(4), layout="dense"), layout="csr", value_type="bf16")
        PackedTable(4 x 4, csr, bf16, 30 bytes)
    """
    if not isinstance(table, PackedTable):
        kind = type(table).__name__
        raise DataError(f"A {kind} is not packed as one; convert its parts and make a {kind} of them.")
    values, fallback = table.values, table.fallback
    value_type, scales = value_type or table.value_type, scales or values.scaled_by
    options: Any = {"value_type": value_type, "scales": scales, "fallback": fallback}
    rounded = (value_type, scales) == (table.value_type, values.scaled_by)
    mask, numbers = _entries(table, decode_codes(values) if rounded else table.numbers())
    remap = None if layout else table.remap is not None
    layout, remap = settle(mask, layout or table.layout, remap, **options)
    if not rounded:
        return assemble(mask, numbers, layout=layout, remap=remap, n_jobs=n_jobs, **options)
    ranked, support, rows, codes = lay_out(mask, numbers, layout=layout, remap=remap, fallback=fallback)
    row_scales = values.row_scales
    if len(values.exponent):
        every = np.zeros(table.shape[0], dtype=np.uint8)
        every[slice(None) if table.remap is None else table.remap.positions()] = row_scales
        row_scales = every[rows]
    stored = with_scales(codes, value_type, row_scales, values.exponent, values.column_scales)
    return PackedTable(table.shape, ranked, support, stored, fallback)


def _entries(table: PackedTable, numbers: Floats) -> tuple[Mask, Floats]:
    """The mask and the numbers worth storing: not the zeros of full rows, but one in a row that would be pruned."""
    if not isinstance(table.support, Full):
        mask = table.tile_mask
        if mask.kept != len(numbers):
            raise FormatError(DAMAGED)
        return mask, numbers
    dim = table.shape[1]
    kept = numbers.reshape(-1, dim) != 0
    if not returns_zeros(table.fallback):
        kept[~kept.any(axis=1), 0] = True
    places = np.flatnonzero(kept)
    numbers = numbers[places]
    if table.remap is not None:
        places = table.remap.positions()[places // dim] * dim + places % dim
    return Mask.from_places(places, table.shape, (1, 1)), numbers

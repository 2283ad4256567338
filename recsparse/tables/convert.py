"""Layout -> layout and value type -> value type, without a dense table in between."""

from typing import Any

from recsparse.tables.choose import choose_layout, layout_sizes
from recsparse.tables.mask import Mask
from recsparse.tables.pack import assemble
from recsparse.tables.packed import PackedTable
from recsparse.tables.supports import Bitmap
from recsparse.tables.values import Scales


def convert(
    table: PackedTable, *, layout: str | None = None, value_type: str | None = None, scales: Scales = "row",
    n_jobs: int | None = None,
) -> PackedTable:  # fmt: skip
    """The same table in another layout ("auto" for the smallest), another value type, or both.

    Entries that are stored in a dense or rows layout are kept where they are not zero. The fallback comes along.

    Example:
        >>> import numpy as np
        >>> from recsparse.tables import pack
        >>> convert(pack(np.eye(4), layout="dense"), layout="csr", value_type="bf16")
        PackedTable(4 x 4, csr, bf16, 30 bytes)
    """
    value_type = value_type or table.value_type
    mask, numbers = table.mask, table.numbers()
    if isinstance(table.support, Bitmap) and table.remap is None:
        mask = Mask(table.shape, table.support.block, table.support.ranked.bits)
    elif table.layout in ("dense", "rows"):
        pattern = mask.to_csr()
        pattern.data = numbers
        pattern.eliminate_zeros()
        mask, numbers = Mask.from_csr(pattern), pattern.data
    options: dict[str, Any] = {"value_type": value_type, "scales": scales}
    if layout in (None, "auto"):
        choice = choose_layout(mask, **options)
        layout, remap = (choice.layout, choice.remap) if layout else (table.layout, table.remap is not None)
    else:
        fitting = [choice for choice in layout_sizes(mask, **options) if choice.layout == layout]
        remap = layout == "rows" or (bool(fitting) and fitting[0].remap)
    return assemble(mask, numbers, layout=layout, remap=remap, fallback=table.fallback, n_jobs=n_jobs, **options)

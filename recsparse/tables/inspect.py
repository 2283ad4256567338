"""Where a table's bytes go, how few they could be, and what other layouts would take."""

from typing import Any

from recsparse.tables.choose import ideal_bytes, layout_sizes
from recsparse.tables.factored import FactoredTable
from recsparse.tables.mask import Mask
from recsparse.tables.packed import PackedTable
from recsparse.tables.sharded import ShardedTable
from recsparse.tables.supports import Bitmap
from recsparse.tables.table import Table


def inspect(table: Table) -> dict[str, Any]:
    """Describe a table in plain numbers, for a person or a program.

    Returns:
        shape, layout, value_type, nbytes, dense_fp32_bytes, ratio (dense fp32 / nbytes; 1 where nothing is stored),
        breakdown (bytes by purpose); of a packed table also entries, density, stored_rows, fallback, ideal_bytes (the
        entropy bound, see :func:`~recsparse.tables.ideal_bytes`) and layouts: bytes of every layout that could hold it,
        without the fallback, smallest first; of others, parts: the same of each part.

    Example:
        >>> import numpy as np
        >>> from recsparse.tables import pack
        >>> inspect(pack(np.eye(64), value_type="int8"))["breakdown"]
        {'indices': 56, 'values': 72, 'scales': 66}
    """
    dense = 4 * table.shape[0] * table.shape[1]
    summary: dict[str, Any] = {
        "shape": table.shape, "layout": table.layout, "value_type": table.value_type, "nbytes": table.nbytes,
        "dense_fp32_bytes": dense, "ratio": dense / table.nbytes if table.nbytes else 1.0,
        "breakdown": table.breakdown(),
    }  # fmt: skip
    if isinstance(table, FactoredTable):
        return {**summary, "parts": {"sparse": inspect(table.sparse), "basis": inspect(table.basis)}}
    if isinstance(table, ShardedTable):
        return {**summary, "parts": {str(number): inspect(shard) for number, shard in enumerate(table.shards)}}
    if isinstance(table, PackedTable):
        mask = stored = table.tile_mask
        if isinstance(table.support, Bitmap):
            stored = Mask((table.stored_rows, table.shape[1]), table.support.block, table.support.ranked.bits)
        sizes = layout_sizes(mask, value_type=table.value_type, scales=table.values.scaled_by, fallback=table.fallback)
        summary |= {
            "entries": table.values.n, "density": mask.density, "stored_rows": table.stored_rows,
            "fallback": table.fallback.kind, "ideal_bytes": ideal_bytes(stored, table.value_type),
            "layouts": {choice.layout + (" + remap" if choice.remap and choice.layout != "rows" else ""): choice.nbytes
                        for choice in sizes},
        }  # fmt: skip
    return summary

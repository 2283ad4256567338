"""What a sparse embedding table is: masks, layouts, value types, exact sizes, files and lookup."""

from recsparse.tables.choose import Choice, choose_layout, ideal_bytes, layout_sizes
from recsparse.tables.mask import Mask
from recsparse.tables.pack import LAYOUTS, pack
from recsparse.tables.packed import PackedTable
from recsparse.tables.storage import load_table, save_table
from recsparse.tables.table import Table
from recsparse.tables.values import quantise

__all__ = [
    "LAYOUTS",
    "Choice",
    "Mask",
    "PackedTable",
    "Table",
    "choose_layout",
    "ideal_bytes",
    "layout_sizes",
    "load_table",
    "pack",
    "quantise",
    "save_table",
]

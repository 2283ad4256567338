"""What a sparse embedding table is: masks, layouts, value types, exact sizes, files and lookup."""

from recsparse.tables.choose import Choice, choose_layout, ideal_bytes, layout_sizes
from recsparse.tables.convert import convert
from recsparse.tables.exports import from_fbgemm, from_torch, to_fbgemm, to_scipy, to_torch
from recsparse.tables.factored import FactoredTable
from recsparse.tables.fallback import Features, GroupMean, HashBucket
from recsparse.tables.inspect import inspect
from recsparse.tables.mask import Mask
from recsparse.tables.pack import LAYOUTS, pack
from recsparse.tables.packed import PackedTable
from recsparse.tables.sharded import ShardedTable
from recsparse.tables.storage import load_table, save_table
from recsparse.tables.table import Table
from recsparse.tables.values import quantise

__all__ = [
    "LAYOUTS",
    "Choice",
    "FactoredTable",
    "Features",
    "GroupMean",
    "HashBucket",
    "Mask",
    "PackedTable",
    "ShardedTable",
    "Table",
    "choose_layout",
    "convert",
    "from_fbgemm",
    "from_torch",
    "ideal_bytes",
    "inspect",
    "layout_sizes",
    "load_table",
    "pack",
    "quantise",
    "save_table",
    "to_fbgemm",
    "to_scipy",
    "to_torch",
]

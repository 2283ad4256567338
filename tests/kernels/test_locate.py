"""Rows are found without reading past what is stored."""

from dataclasses import replace

import numpy as np
import pytest

from recsparse.errors import FormatError
from recsparse.tables import FactoredTable, Mask, PackedTable, pack
from recsparse.tables.bits import frozen
from tests.guard import guarded


@pytest.mark.parametrize("layout", ["rows", "bitmap", "block", "ell", "csr", "combination"])
@pytest.mark.parametrize("rows", [1, 7, 9, 17, 32])
def test_nothing_past_the_last_row_is_read(layout, rows):
    rng = np.random.default_rng(rows)
    tiles = rng.permuted(np.tile(np.arange(100) < 20, (rows, 1)), axis=1)
    mask = Mask.from_tiles(tiles, (rows, 500), (1, 5))
    values = np.where(mask.to_dense(), rng.standard_normal((rows, 500)), 0).astype(np.float32)
    table = pack(values, None if layout == "rows" else mask, layout=layout, remap=True)
    stored = {name: frozen(guarded(tensor)) for name, tensor in table.tensors().items()}
    again = PackedTable.from_tensors(table.header, stored)
    np.testing.assert_array_equal(again.lookup(np.arange(rows)), values)
    np.testing.assert_array_equal(FactoredTable(again, pack(np.eye(500))).lookup(np.arange(rows)), values)


@pytest.mark.parametrize(
    ("layout", "damaged"), [("csr", "counts"), ("combination", "counts"), ("combination", "subsets")]
)
def test_starts_so_large_that_sums_wrap_around_are_refused(layout, damaged):
    rng = np.random.default_rng(0)
    table = pack(np.where(rng.random((16, 32)) < 0.25, rng.standard_normal((16, 32)), 0), layout=layout)
    support, starts = table.support, frozen(np.array([2**63 - 3], dtype=np.uint64))
    if damaged == "counts":
        support = replace(support, counted=replace(support.counted, starts=starts))
    else:
        support = replace(support, subset_starts=starts)
    with pytest.raises(FormatError, match="damaged"):
        replace(table, support=support).lookup([0])

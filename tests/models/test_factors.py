"""Repacking takes over what is stored and what answers for the rest; histories are held to what fitting asks."""

import numpy as np
import pytest

from recsparse.errors import DataError
from recsparse.models import IALS, MF, LowRankIALS
from recsparse.tables import Mask, PackedTable, ShardedTable, pack
from recsparse.tables.fallback import Mean
from tests.models.known import checkerboard_matrix

STORED = np.array([True, False, True, False, False, True, True])
VALUES = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


def shards(*vectors: np.ndarray) -> ShardedTable:
    """Rows 0 to 3 and 4 to 6, as two ranks export them."""
    parts = zip((slice(0, 4), slice(4, 7)), vectors, strict=True)
    return ShardedTable(
        tuple(
            pack(VALUES[part], Mask.from_rows(STORED[part], 4), layout="rows", fallback=Mean(vector))
            for part, vector in parts
        )
    )


def repacked(table: ShardedTable, value_type: str) -> PackedTable:
    model = MF(dim=4)
    model.item_table_ = table
    found = model.repack(value_type).item_table_
    assert isinstance(found, PackedTable)
    assert model.item_table_ is table
    return found


@pytest.mark.parametrize("value_type", ["fp32", "int8"])
def test_rows_that_are_not_stored_stay_so_and_keep_their_fallback(value_type: str) -> None:
    vector = np.array([0.5, -1, 0, 2], dtype=np.float32)
    table = shards(vector, vector)
    np.testing.assert_array_equal(table.row_counts(), 4 * STORED)
    found = repacked(table, value_type)
    assert (found.layout, found.value_type, found.stored_rows) == ("rows", value_type, 4)
    np.testing.assert_array_equal(found.row_counts(), 4 * STORED)
    np.testing.assert_array_equal(found.lookup([1, 3, 4, -1, 7]), np.tile(vector, (5, 1)))
    np.testing.assert_allclose(found.to_dense()[STORED], VALUES[STORED], atol=0 if value_type == "fp32" else 0.02)


def test_a_fallback_of_zeros_needs_no_vector() -> None:
    zero = np.zeros(4, dtype=np.float32)
    found = repacked(shards(zero, zero), "fp32")
    assert found.fallback.kind == "zero"
    np.testing.assert_array_equal(found.to_dense(), VALUES * STORED[:, None])
    assert (found.row_counts() > 0).tolist() == STORED.tolist()


def test_answers_that_are_not_one_vector_become_rows() -> None:
    table = shards(np.array([0, 0, 0, 1], dtype=np.float32), np.array([1, 0, 0, 0], dtype=np.float32))
    np.testing.assert_array_equal(repacked(table, "fp32").to_dense(), table.to_dense())


@pytest.mark.parametrize("model", [IALS(dim=4, epochs=1), LowRankIALS(dim=4, epochs=2), MF(dim=4, epochs=1)])
def test_a_negative_value_in_a_history_is_refused(model: IALS | MF) -> None:
    fitted = model.fit(checkerboard_matrix())
    disliked = checkerboard_matrix()[:3]
    disliked.data[-1] = -1.5
    message = rf"value -1\.5 of history 2 and item row {disliked.indices[-1]} is negative, and (iALS|MF) takes"
    with pytest.raises(DataError, match=message):
        fitted.fold_in(disliked)
    disliked.data[-1] = 1
    assert np.isfinite(fitted.fold_in(disliked)).all()

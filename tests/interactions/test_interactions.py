import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from recsparse.errors import DataError
from recsparse.interactions import ITEM, USER, Interactions

LINES = pd.DataFrame({
    "user_id": ["bob", "ann", "ann", "bob", "ann"],
    "item_id": [7, 9, 7, 7, 3],
    "value": [1.0, 2.0, 3.0, 4.0, 5.0],
    "time": [50, 40, 30, 20, 10],
})  # fmt: skip


@pytest.fixture
def data() -> Interactions:
    return Interactions.from_frame(LINES, value="value", time="time")


def test_rows_and_columns_ascend_and_the_last_line_of_a_pair_counts(data: Interactions) -> None:
    assert data.user_ids.tolist() == ["ann", "bob"]
    assert data.item_ids.tolist() == [3, 7, 9]
    assert data.matrix.toarray().tolist() == [[5.0, 3.0, 2.0], [0.0, 4.0, 0.0]]
    assert data.times is not None
    assert data.times.tolist() == [10, 30, 40, 20]
    assert data.matrix.dtype == np.float32


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 5), st.integers(0, 99)), min_size=1, max_size=40))
def test_a_frame_comes_back(lines: list[tuple[int, int, int]]) -> None:
    frame = pd.DataFrame(lines, columns=["user_id", "item_id", "time"]).drop_duplicates(["user_id", "item_id"])
    back = Interactions.from_frame(frame, time="time").to_frame()[["user_id", "item_id", "time"]]
    expected = frame.sort_values(["user_id", "item_id"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(back, expected, check_dtype=False)


def test_unknown_ids_are_minus_one_whatever_their_type(data: Interactions) -> None:
    assert data.user_rows(["bob", "eve", 7, None]).tolist() == [1, -1, -1, -1]
    assert data.item_rows([9, -1, 10**12, 3]).tolist() == [2, -1, -1, 0]
    assert data.item_rows(np.array([9, 4], dtype=np.int32)).tolist() == [2, -1]
    assert data.item_rows([]).dtype == np.int64


def test_selected_users_keep_their_values_and_times(data: Interactions) -> None:
    turned = data.select_users([1, 0])
    assert turned.user_ids.tolist() == ["bob", "ann"]
    assert turned.matrix.toarray().tolist() == [[0.0, 4.0, 0.0], [5.0, 3.0, 2.0]]
    assert turned.times is not None
    assert turned.times.tolist() == [20, 10, 30, 40]


def test_selected_entries_keep_their_places(data: Interactions) -> None:
    late = data.select_entries(np.asarray(data.times) >= 30)
    assert late.matrix.toarray().tolist() == [[0.0, 3.0, 2.0], [0.0, 0.0, 0.0]]
    with pytest.raises(DataError, match=r"\(3,\).*must be \(4,\)"):
        data.select_entries(np.ones(3, dtype=np.bool_))


def test_another_catalogue_is_matched_by_id(data: Interactions) -> None:
    other = data.with_items(pa.table({ITEM: [9, 5, 3]}))
    assert other.matrix.toarray().tolist() == [[2.0, 0.0, 5.0], [0.0, 0.0, 0.0]]
    assert other.matrix.has_sorted_indices
    assert other.times is not None
    assert other.times.tolist() == [40, 10]


def test_a_bare_matrix_has_row_numbers_for_ids_and_sums_repeats() -> None:
    pairs = (np.ones(3), ([0, 0, 1], [2, 2, 0]))
    data = Interactions.from_csr(sp.coo_array(pairs, shape=(2, 3)))
    assert data.matrix.toarray().tolist() == [[0.0, 0.0, 2.0], [1.0, 0.0, 0.0]]
    assert data.item_ids.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (LINES.drop(columns="item_id"), {}, "no column 'item_id'"),
        (LINES.assign(user_id=["a", None, "b", "c", "d"]), {}, "Line 1 .* no 'user_id'"),
        (LINES.assign(value=[1, 2, np.nan, 4, 5]), {"value": "value"}, "nan of user 'ann' is not finite"),
        (LINES.assign(value=[1, np.inf, 3, 4, 5]), {"value": "value"}, "inf of user 'ann' is not finite"),
    ],
)
def test_what_cannot_be_used_is_refused(frame: pd.DataFrame, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Interactions.from_frame(frame, **options)


def test_tables_must_fit_the_matrix() -> None:
    matrix = sp.csr_array(np.eye(2, dtype=np.float32))
    users, items = pa.table({USER: [1, 2]}), pa.table({ITEM: [1, 2]})
    with pytest.raises(DataError, match="items table has 1 rows, the matrix 2"):
        Interactions(matrix, users, items.slice(0, 1))
    with pytest.raises(DataError, match="users table has no column 'user_id'"):
        Interactions(matrix, items, items)
    with pytest.raises(DataError, match="stored as csc"):
        Interactions(matrix.tocsc(), users, items)
    for indices, indptr, message in (
        ([0, 2], [0, 1, 2], "column 2 of 2"),
        ([0, -1], [0, 1, 2], "column -1 of 2"),
        ([1, 0, 1], [0, 3, 3], "twice"),
        ([1, 0], [0, 10**8, 2], "starts descend"),
    ):
        wrong = sp.csr_array((np.ones(len(indices), np.float32), np.array(indices), np.array(indptr)), shape=(2, 2))
        with pytest.raises(DataError, match=message):
            Interactions(wrong, users, items)
    with pytest.raises(DataError, match="3 times for 2"):
        Interactions(matrix, users, items, np.arange(3))

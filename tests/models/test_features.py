import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recsparse.models.features import Encoding

ITEMS = pa.table(
    {
        "item_id": [10, 20, 30, 40],
        "year": pa.array([1990, 2000, None, 2010], type=pa.int32()),
        "adult": [True, False, False, None],
        "constant": [7.0, 7.0, 7.0, 7.0],
        "title": ["a", "b", "c", "d"],
        "language": ["en", "fr", None, "en"],
        "genres": pa.array([["war", "war"], [], None, ["comedy", "war", None]], type=pa.list_(pa.string())),
    }
)


def test_numbers_are_standardised_and_categories_marked() -> None:
    encoding = Encoding.of(ITEMS)
    assert encoding.names == ["year", "adult", "language=en", "language=fr", "genres=comedy", "genres=war"]
    std = np.sqrt(200 / 3)
    third = np.sqrt(2 / 9)
    expected = [
        [-10 / std, 2 / 3 / third, 1, 0, 0, 1],
        [0, -1 / 3 / third, 0, 1, 0, 0],
        [0, -1 / 3 / third, 0, 0, 0, 0],
        [10 / std, 0, 1, 0, 1, 1],
    ]
    np.testing.assert_allclose(encoding.encode(ITEMS).toarray(), expected, rtol=1e-6)


def test_unknown_values_and_absent_columns_are_ignored() -> None:
    encoding = Encoding.of(ITEMS)
    new = pa.table({"item_id": [5], "language": ["de"], "genres": [["war", "opera"]]})
    assert encoding.encode(new).toarray().tolist() == [[0, 0, 0, 0, 0, 1]]
    nothing = pa.table({"item_id": [5], "genres": pa.nulls(1)})
    assert encoding.encode(nothing).toarray().tolist() == [[0] * 6]


def test_a_table_of_ids_has_no_features() -> None:
    encoding = Encoding.of(ITEMS.select(["item_id"]))
    assert encoding.names == []
    assert encoding.encode(ITEMS).shape == (4, 0)


def test_json_brings_the_same_encoding_back() -> None:
    encoding = Encoding.of(ITEMS)
    assert Encoding.model_validate_json(encoding.model_dump_json()) == encoding


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=3), min_size=1, max_size=8))
def test_rows_encode_alike_alone_and_in_any_slice(lists: list[list[str]]) -> None:
    table = pa.table({"item_id": range(len(lists)), "tags": pa.array(lists, type=pa.list_(pa.string()))})
    encoding = Encoding.of(table)
    whole = encoding.encode(table).toarray()
    for row in range(len(lists)):
        np.testing.assert_array_equal(encoding.encode(table.slice(row, 1)).toarray()[0], whole[row])
    assert [{name[5:] for name in np.array(encoding.names)[row > 0]} for row in whole] == [set(own) for own in lists]

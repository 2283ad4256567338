import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsparse.errors import DataError
from recsparse.scoring.pairs import score_pairs_to_parquet


@pytest.mark.parametrize("kind", ["ials", "ease"])
def test_pairs_get_the_scores_that_rank_lists(kind, request, data, tmp_path):
    model = request.getfixturevalue(kind)
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 300, 1000), rng.integers(0, 90, 1000)
    pairs = pa.table({
        "note": [f"n{n}" for n in range(1002)],
        "user_id": [*data.user_ids[users], "nobody", "u1"],
        "item_id": [*data.item_ids[items], 7, -7],
    })  # fmt: skip
    pq.write_table(pairs, tmp_path / "pairs.parquet", row_group_size=300)

    assert score_pairs_to_parquet(model, tmp_path / "pairs.parquet", tmp_path / "scored.parquet") == 1000

    scored = pq.read_table(tmp_path / "scored.parquet")
    assert scored.drop_columns("score").equals(pairs)
    expected = np.asarray(model.scores(model.queries(data)))[users, items]
    np.testing.assert_allclose(scored["score"].to_numpy()[:1000], expected, rtol=1e-4, atol=1e-6)
    assert scored["score"].to_pylist()[1000:] == [None, None]


def test_a_file_that_does_not_fit_is_refused(ials, tmp_path):
    pq.write_table(pa.table({"user_id": ["u1"]}), tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match="item_id"):
        score_pairs_to_parquet(ials, tmp_path / "pairs.parquet", tmp_path / "scored.parquet")
    pq.write_table(pa.table({"user_id": ["u1"], "item_id": [7], "score": [1.0]}), tmp_path / "again.parquet")
    with pytest.raises(DataError, match="no score"):
        score_pairs_to_parquet(ials, tmp_path / "again.parquet", tmp_path / "scored.parquet")
    assert not (tmp_path / "scored.parquet").exists()

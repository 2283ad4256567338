import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsparse.interactions import ITEM, USER
from recsparse.models import Recommender


def test_items_are_ordered_by_cosine(say, model):
    loaded = Recommender.load(model)
    vectors = loaded.item_table_.to_dense()
    item = loaded.items_[ITEM][3].as_py()
    norms = np.linalg.norm(vectors, axis=1)
    cosines = vectors @ vectors[3] / np.where(norms > 0, norms, 1) / norms[3]
    cosines[3] = -2
    found = json.loads(say("similar", model, "--item", item, "--top", 4, "--json").out)["similar"]
    assert [line["score"] for line in found] == pytest.approx(np.sort(cosines)[::-1][:4], abs=1e-6)
    assert found[0]["similar_id"] == loaded.items_[ITEM][int(np.argmax(cosines))].as_py()
    assert str(found[0]["similar_id"]) in say("similar", model, "--item", item, "--top", 4).out


def test_users_and_all_items(say, refused, model, tmp_path):
    user = Recommender.load(model).users_[USER][0].as_py()
    assert len(json.loads(say("similar", model, "--user", user, "--top", 2, "--json").out)["similar"]) == 2
    assert say("similar", model, "--top", 2, "-o", tmp_path / "similar.parquet").code == 0
    assert pq.read_table(tmp_path / "similar.parquet").column_names == [ITEM, "similar_id", "rank", "score"]
    assert "no item_id '-5'" in refused("similar", model, "--item", "-5")
    assert "Name items" in refused("similar", model)


def test_scores_of_pairs(say, refused, model, tmp_path):
    loaded = Recommender.load(model)
    user, item = loaded.users_[USER][0].as_py(), loaded.items_[ITEM][0].as_py()
    pairs = pa.table({USER: [user, "stranger"], ITEM: [item, item], "shown": [1, 2]})
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    said = say("score-pairs", model, tmp_path / "pairs.parquet", "-o", tmp_path / "scored.parquet", "--json")
    assert json.loads(said.out)["scored"] == 1
    scored = pq.read_table(tmp_path / "scored.parquet")
    assert scored.drop_columns("score").equals(pairs)
    assert scored["score"].to_pylist() == [pytest.approx(loaded.score_pairs([user], [item])[0]), None]
    pq.write_table(pairs.drop_columns(ITEM), tmp_path / "pairs.parquet")
    words = ("score-pairs", model, tmp_path / "pairs.parquet", "-o", tmp_path / "other.parquet")
    assert "must have the columns user_id and item_id" in refused(*words)
    assert not (tmp_path / "other.parquet").exists()

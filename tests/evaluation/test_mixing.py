import numpy as np
import pandas as pd
import pytest

from recsparse.errors import ConfigError
from recsparse.evaluation.mixing import add_noise, merge
from recsparse.interactions.interactions import Interactions


@pytest.fixture
def train():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"user_id": rng.integers(0, 30, 400), "item_id": rng.integers(100, 140, 400)})
    frame["rating"], frame["time"] = rng.integers(1, 6, 400), rng.integers(0, 999, 400)
    return Interactions.from_frame(frame, value="rating", time="time")


def test_noise_adds_exactly_so_many_and_keeps_the_rest(train):
    noisy = add_noise(train, 0.4, seed=3)
    assert noisy.nnz == train.nnz + round(0.4 * train.nnz)
    there = train.matrix.toarray() != 0
    np.testing.assert_array_equal(noisy.matrix.toarray()[there], train.matrix.toarray()[there])
    assert set(noisy.matrix.data) <= {1, 2, 3, 4, 5}
    assert noisy.matrix.has_canonical_format
    kept = noisy.select_entries(
        there[np.repeat(range(train.shape[0]), np.diff(noisy.matrix.indptr)), noisy.matrix.indices]
    )
    np.testing.assert_array_equal(kept.times, train.times)


def test_noise_is_seeded_uniform_and_bounded(train):
    same, again, other = (add_noise(train, 0.2, seed=seed).matrix.toarray() for seed in (1, 1, 2))
    np.testing.assert_array_equal(same, again)
    assert (same != other).any()
    assert add_noise(train, 0.0).nnz == train.nnz
    everything = add_noise(train, (train.shape[0] * train.shape[1] - train.nnz) / train.nnz)
    assert (everything.matrix.toarray() != 0).all()
    with pytest.raises(ConfigError, match="free pairs"):
        add_noise(train, 50)
    with pytest.raises(ConfigError, match="-1"):
        add_noise(train, -1)


def test_what_is_spared_stays_free_by_id(train):
    frame = pd.DataFrame({"user_id": [29, 29, 3, 888], "item_id": [139, 5, 101, 139]})
    spare = Interactions.from_frame(frame)
    rows, columns = train.user_rows([29, 3]), train.item_rows([139, 101])
    free = train.matrix.toarray()[rows, columns] == 0
    room = train.shape[0] * train.shape[1] - train.nnz - free.sum()
    full = add_noise(train, room / train.nnz, spare=spare).matrix.toarray()
    assert free.any()
    assert (full[rows, columns][free] == 0).all()
    assert (full == 0).sum() == free.sum()
    with pytest.raises(ConfigError, match="free pairs"):
        add_noise(train, (room + 1) / train.nnz, spare=spare)


def test_every_free_pair_is_as_likely():
    train = Interactions.from_csr(np.eye(4))
    hits = sum(add_noise(train, 0.5, seed=seed).matrix.toarray() - np.eye(4) for seed in range(600))
    free = hits[~np.eye(4, dtype=bool)]
    assert free.sum() == 1200
    assert free.min() > 65, "100 each, standard deviation 9"
    assert free.max() < 135


def test_merge_is_what_pandas_makes(train):
    extra = pd.DataFrame({"user_id": [0, 0, 77], "item_id": [139, 100, 120], "rating": [9, 9, 9], "time": [1, 2, 3]})
    merged = merge(train, Interactions.from_frame(extra, value="rating", time="time"))
    both = pd.concat([train.to_frame(), extra.rename(columns={"rating": "value"})])
    expected = both.drop_duplicates(["user_id", "item_id"], keep="last").sort_values(["user_id", "item_id"])
    pd.testing.assert_frame_equal(
        merged.to_frame().sort_values(["user_id", "item_id"]).reset_index(drop=True),
        expected.reset_index(drop=True),
        check_dtype=False,
    )
    assert merged.matrix.has_canonical_format

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse as sp

from recsparse.interactions import Interactions, write
from recsparse.models import EASE, IALS

N_USERS, N_ITEMS = 300, 90


def interactions(seed=0, n_users=N_USERS, n_items=N_ITEMS, first_user=0):
    """Random tastes in two groups; string user ids, int item ids that are not row numbers, features on both sides."""
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, n_users)
    chance = np.where((np.arange(n_items)[None, :] % 2) == side[:, None], 0.2, 0.04)
    matrix = sp.csr_array((rng.random((n_users, n_items)) < chance).astype(np.float32))
    users = pa.table(
        {"user_id": [f"u{first_user + n}" for n in range(n_users)], "side": pa.array(side.astype(np.int64))}
    )
    items = pa.table(
        {
            "item_id": np.arange(n_items)[::-1] * 10 + 7,
            "genre": [None if n % 10 == 9 else f"g{n % 4}" for n in range(n_items)],
            "year": pa.array(1990 + np.arange(n_items) % 30),
        }
    )
    return Interactions(matrix, users, items)


@pytest.fixture(scope="session")
def data():
    return interactions()


@pytest.fixture(scope="session")
def ials(data):
    return IALS(dim=8, epochs=3).fit(data)


@pytest.fixture(scope="session")
def ease(data):
    return EASE().fit(data)


@pytest.fixture(scope="session")
def strangers():
    """Users never seen over the same catalogue; the first has no history."""
    new = interactions(seed=1, n_users=70, first_user=5000)
    return new.select_entries(new.matrix.tocoo().row > 0)


@pytest.fixture(scope="session")
def model_directory(ials, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model") / "ials"
    ials.save(directory)
    return directory


@pytest.fixture(scope="session")
def strangers_directory(strangers, tmp_path_factory):
    return write(strangers, tmp_path_factory.mktemp("data") / "strangers")


def brute_force(model, source, k, *, keep=None, excluded=None, cap=None, trained=False):
    """The definition: all scores, sorted, what is excluded left out, at most ``cap[1]`` of each value of ``cap[0]``."""
    lines = []
    scores = np.array(model.scores(model.queries(source) if trained else model.fold_in(source)))
    cold = np.diff(source.matrix.indptr) == 0
    scores[cold] = model.popularity_
    seen = source.matrix.toarray() != 0 if excluded is None else excluded
    item_ids = model.items_["item_id"].to_pylist()
    for row, user in enumerate(source.users["user_id"].to_pylist()):
        taken, counts = 0, {}
        for item in sorted(range(len(item_ids)), key=lambda i: (-scores[row, i], i)):
            if seen[row, item] or (keep is not None and not keep[item]):
                continue
            if cap is not None and cap[0][item] is not None:
                if counts.get(cap[0][item], 0) == cap[1]:
                    continue
                counts[cap[0][item]] = counts.get(cap[0][item], 0) + 1
            taken += 1
            status = "cold" if cold[row] else "warm" if trained else "folded-in"
            lines.append((user, item_ids[item], taken, scores[row, item], status))
            if taken == k:
                break
    return pd.DataFrame(lines, columns=["user_id", "item_id", "rank", "score", "status"])


def assert_same(table, expected):
    """Equal but for the last bits of scores, which two products may sum in different orders."""
    got = table.to_pandas()
    for column in ("user_id", "item_id", "rank", "status"):
        assert got[column].tolist() == expected[column].tolist(), column
    np.testing.assert_allclose(got["score"], expected["score"], rtol=2e-5, atol=2e-6)

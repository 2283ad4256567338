import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.models.base import Recommender


class ByTable(Recommender):
    """Give each user, known by the first item of the history, the scores of a fixed (I, I) table."""

    kind = "by-table-for-evaluation-tests"

    def __init__(self, weights=None):
        self.weights = weights

    def _fit(self, interactions):
        pass

    def _fold_in(self, histories):
        return histories

    def scores(self, queries):
        return np.asarray(queries @ np.asarray(self.weights, dtype=np.float32), dtype=np.float32)

    def _save_state(self, directory):
        pass

    def _load_state(self, directory):
        pass


@pytest.fixture
def by_table():
    return ByTable


@pytest.fixture
def holdout_of():
    """Make a holdout of dense 0/1 histories and targets, with user ids that no training user has."""

    def make(history, target, items=None):
        history, target = np.asarray(history, dtype=np.float32), np.asarray(target, dtype=np.float32)
        users = pa.table({"user_id": [f"held-{row}" for row in range(len(history))]})
        items = pa.table({"item_id": np.arange(history.shape[1])}) if items is None else items
        return Holdout(
            history=Interactions(sp.csr_array(history), users, items),
            target=Interactions(sp.csr_array(target), users, items),
        )

    return make


@pytest.fixture
def random_case(holdout_of):
    """A fitted model with random scores, ties among them, and a holdout; some users have no target."""

    def make(seed=0, n_users=40, n_items=60, levels=None):
        rng = np.random.default_rng(seed)
        train = (rng.random((30, n_items)) < 0.2).astype(np.float32)
        train[0] = 1
        weights = rng.random((n_items, n_items)) if levels is None else rng.integers(0, levels, (n_items, n_items))
        part = rng.random((n_users, n_items))
        history, target = part < 0.1, (part > 0.9) & (rng.random((n_users, 1)) < 0.9)
        history[:, 0], target[:, 0] = True, False
        model = ByTable(weights).fit(sp.csr_array(train))
        return model, holdout_of(history, target)

    return make

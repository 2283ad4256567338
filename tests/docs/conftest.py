import numpy as np
import pandas as pd
import pytest

TASTES = 2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the `ratings.csv` that the pages speak of: two tastes, popular and rare films."""
    rng = np.random.default_rng(0)
    users, items = np.arange(240)[:, None], np.arange(60)[None, :]
    wanted = np.where(users % TASTES == items % TASTES, 0.6, 0.12) * (1 - items / 90)
    user, item = np.nonzero(rng.random(wanted.shape) < wanted)
    times = 1_600_000_000 + rng.integers(0, 10**6, len(user))
    frame = pd.DataFrame({"userId": user, "movieId": item, "rating": rng.integers(1, 6, len(user)), "timestamp": times})
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path

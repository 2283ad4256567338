import numpy as np
import pyarrow as pa
import pytest

from recsparse.interactions import Interactions
from tests.interactions.known import frame


@pytest.fixture(scope="session")
def timed() -> Interactions:
    """A dataset in memory: 60 users, 30 items, times, two features."""
    rng = np.random.default_rng(3)
    lines = frame(1500, 60, 30, seed=3, repeats=False)
    data = Interactions.from_frame(lines, value="rating", time="timestamp")
    users = data.users.append_column("age", pa.array(rng.integers(18, 80, data.shape[0])))
    items = data.items.append_column("topic", pa.array([f"t{row % 3}" for row in range(data.shape[1])]))
    return Interactions(data.matrix, users, items, data.times)

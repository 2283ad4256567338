"""Data whose right recommendation is known by construction."""

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp

from recsparse.interactions.interactions import ITEM, USER, Interactions
from recsparse.interactions.split import Holdout

SIDE = 40

N_USERS, N_ITEMS, KINDS = 240, 150, 6
"""Of what :func:`planted` gives."""


def checkerboard_matrix(side: int = SIDE) -> sp.csr_array:
    """User u has every item of u's colour (parity) but item u: the one right answer for user u is item u."""
    rows, columns = np.indices((side, side))
    return sp.csr_array(((rows % 2 == columns % 2) & (rows != columns)).astype(np.float32))


def checkerboard(ids: str = "int") -> Interactions:
    """The checkerboard with ids that are not row numbers: ``int`` (descending) or ``string``."""
    numbers = range(1000 + SIDE, 1000, -1)
    users = [f"user {n}" for n in numbers] if ids == "string" else list(numbers)
    items = [f"item {n}" for n in numbers] if ids == "string" else [10 * n for n in numbers]
    return Interactions(checkerboard_matrix(), pa.table({USER: users}), pa.table({ITEM: items}))


def histories(items: list[list[object]], users: list[object]) -> Interactions:
    """Interactions of these users, one list of original item ids each."""
    lines = [(user, item) for user, own in zip(users, items, strict=True) for item in own]
    return Interactions.from_frame(pd.DataFrame(lines, columns=[USER, ITEM]))


def planted(cold_from: int = 120, seed: int = 0) -> tuple[Interactions, Holdout]:
    """Users like two of six kinds; the items from ``cold_from`` on have no training interactions, but are liked."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, KINDS, N_ITEMS)
    tastes = np.array([rng.choice(KINDS, 2, replace=False) for _ in range(N_USERS)])
    likes = (tastes[:, :, None] == kinds).any(axis=1)
    chance = np.where(likes, 0.3, 0.02) * rng.uniform(0.5, 1.5, N_ITEMS)
    matrix = sp.csr_array((rng.random((N_USERS, N_ITEMS)) < chance).astype(np.float32))
    items = pa.table({"item_id": np.arange(N_ITEMS), "kind": [f"kind {kind}" for kind in kinds]})
    users = pa.table({"user_id": np.arange(N_USERS), "likes": [[f"kind {kind}" for kind in own] for own in tastes]})
    whole = Interactions(matrix, users, items)
    cold = matrix.indices >= cold_from
    train = whole.select_entries(~cold)
    return train, Holdout(train, whole.select_entries(cold))

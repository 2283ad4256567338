"""Data whose right recommendation is known by construction."""

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp

from recsparse.interactions.interactions import ITEM, USER, Interactions

SIDE = 40


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

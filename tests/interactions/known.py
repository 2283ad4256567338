"""Small files in the forms people have, and a slow independent build to compare with."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from recsparse.interactions import Interactions


def frame(
    n_lines: int = 400, n_users: int = 25, n_items: int = 40, *, seed: int = 0, repeats: bool = True
) -> pd.DataFrame:
    """Lines as a log has them: pairs repeat, times are not sorted."""
    rng = np.random.default_rng(seed)
    lines = pd.DataFrame(
        {
            "user_id": rng.integers(0, n_users, n_lines) * 7 + 3,
            "item_id": rng.integers(0, n_items, n_lines) * 11 + 5,
            "rating": rng.integers(1, 11, n_lines) / 2,
            "timestamp": rng.integers(1_000_000_000, 1_000_001_000, n_lines),
        }
    )
    return lines if repeats else lines.drop_duplicates(["user_id", "item_id"], ignore_index=True)


def by_hand(lines: pd.DataFrame, duplicates: str = "last") -> dict[tuple[object, object], tuple[float, int]]:
    """Merge repeated pairs line by line, in plain Python."""
    merged: dict[tuple[object, object], tuple[float, int]] = {}
    for user, item, value, time in lines.itertuples(index=False):
        old = merged.get((user, item))
        if old is None:
            merged[user, item] = (1.0 if duplicates == "count" else value, time)
        elif duplicates == "last":
            merged[user, item] = (value, time) if time >= old[1] else old
        elif duplicates == "max":
            merged[user, item] = max(old, (value, time))
        else:
            merged[user, item] = (old[0] + (1.0 if duplicates == "count" else value), max(old[1], time))
    return merged


def as_dict(interactions: Interactions) -> dict[tuple[object, object], tuple[float, int]]:
    """Interactions as {(user, item): (value, time)}, for comparison with :func:`by_hand`."""
    lines = interactions.to_frame()
    times = lines["time"] if "time" in lines else [0] * len(lines)
    return {
        (u, i): (v, t) for u, i, v, t in zip(lines["user_id"], lines["item_id"], lines["value"], times, strict=True)
    }


def tree(directory: Path) -> dict[str, str]:
    """Digest of every file below a directory."""
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }

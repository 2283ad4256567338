"""What a split lets through: unseen users and items, the future, pairs that are both given and asked for."""

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from recsparse.interactions.interactions import Interactions

if TYPE_CHECKING:
    from recsparse.interactions.split import Holdout


def inspect_split(train: Interactions, validation: "Holdout", test: "Holdout") -> dict[str, Any]:
    """Count what training and each holdout hold, and what they share.

    For each holdout: ``users``, ``history`` and ``target`` interactions; ``users_unseen`` (no training interaction);
    ``items`` asked for, ``items_unseen`` among them and ``target_unseen``, the target interactions with those;
    ``repeated_pairs`` (in the target and also in training or history); and, with times, ``train_from_future``
    (training interactions later than the earliest target) and ``history_from_future`` (history interactions later
    than the same user's earliest target).
    """
    n_users, n_items = train.shape
    counts = {"users": n_users, "items": n_items, "interactions": train.nnz}
    seen = np.bincount(train.matrix.indices, minlength=n_items) > 0
    return {
        "train": counts | {"items_unseen": int(n_items - seen.sum())},
        "validation": _inspect(train, validation, seen),
        "test": _inspect(train, test, seen),
    }


def _inspect(train: Interactions, holdout: "Holdout", seen: Any) -> dict[str, int]:
    history, target = holdout.history, holdout.target
    rows = train.user_rows(target.user_ids)
    asked = np.unique(target.matrix.indices)
    both = _shared(target.matrix, history.matrix)
    known = np.flatnonzero(rows >= 0)
    both_train = _shared(target.matrix[known], train.matrix[rows[known]])
    found = {
        "users": target.shape[0],
        "history": history.nnz,
        "target": target.nnz,
        "users_unseen": int((rows < 0).sum()),
        "items": len(asked),
        "items_unseen": int((~seen[asked]).sum()),
        "target_unseen": int((~seen[target.matrix.indices]).sum()),
        "repeated_pairs": max(both, both_train),
    }
    if train.times is not None and history.times is not None and target.times is not None:
        earliest = np.minimum.reduceat(target.times, target.matrix.indptr[:-1])
        own = np.repeat(earliest, np.diff(history.matrix.indptr))
        found["train_from_future"] = int((train.times > earliest.min()).sum())
        found["history_from_future"] = int((history.times > own).sum())
    return found


def _shared(one: sp.csr_array, other: sp.csr_array) -> int:
    """Count the places stored in both; a stored zero counts."""
    patterns = [
        sp.csr_array((np.ones(each.nnz, dtype=np.int8), each.indices, each.indptr), shape=each.shape)
        for each in (one, other)
    ]
    return int(patterns[0].multiply(patterns[1]).nnz)

"""What a split lets through: unseen users and items, the future, pairs that are both given and asked for."""

from typing import Any

import numpy as np

from recsparse.interactions.protocols import TEST, TRAIN, VALIDATION, Block, Labels, history_of


class Leakage:
    """Counts what training and each holdout hold and share, block of users by block of users.

    For each holdout: ``users``, ``history`` and ``target`` interactions; ``users_unseen`` (no training interaction);
    ``items`` asked for, ``items_unseen`` among them and ``target_unseen``, the target interactions with those;
    ``repeated_pairs`` (stored twice in the data, so that one may be given and the other asked for); and, with times,
    ``train_from_future`` (training interactions later than the earliest target) and ``history_from_future`` (history
    interactions later than the same user's earliest target).
    """

    def __init__(self, n_items: int) -> None:
        self.train = np.zeros(n_items, dtype=np.int64)
        self.train_users = 0
        self.repeated = 0
        self.holdouts = {"validation": _Holdout(VALIDATION, n_items), "test": _Holdout(TEST, n_items)}

    def add(self, block: Block, labels: Labels) -> None:
        """Count one block."""
        if not len(labels):
            return
        local = block.users - block.users[0]
        trained = labels == TRAIN
        has_train = np.bincount(local[trained], minlength=int(local[-1]) + 1) > 0
        self.train += np.bincount(block.items[trained], minlength=len(self.train))
        self.train_users += int(has_train.sum())
        self.repeated += int(((np.diff(block.users) == 0) & (np.diff(block.items) == 0)).sum())
        for holdout in self.holdouts.values():
            holdout.add(block, labels, local, has_train)

    @property
    def earliest(self) -> dict[str, int]:
        """The time of each holdout's earliest target."""
        return {name: holdout.earliest for name, holdout in self.holdouts.items()}

    def report(self, later: dict[str, int] | None) -> dict[str, Any]:
        """Give the counts; ``later``: training interactions later than each holdout's earliest target."""
        seen = self.train > 0
        train = {"users": self.train_users, "items": len(seen), "interactions": int(self.train.sum())}
        found: dict[str, Any] = {"train": train | {"items_unseen": int((~seen).sum())}}
        for name, holdout in self.holdouts.items():
            asked = holdout.target > 0
            found[name] = {
                "users": holdout.users,
                "history": holdout.history,
                "target": int(holdout.target.sum()),
                "users_unseen": holdout.users_unseen,
                "items": int(asked.sum()),
                "items_unseen": int((asked & ~seen).sum()),
                "target_unseen": int(holdout.target[~seen].sum()),
                "repeated_pairs": self.repeated,
            }
            if later is not None:
                found[name] |= {"train_from_future": later[name], "history_from_future": holdout.from_future}
        return found


class _Holdout:
    """The counts of one holdout."""

    def __init__(self, label: int, n_items: int) -> None:
        self.label = label
        self.target = np.zeros(n_items, dtype=np.int64)
        self.users = self.history = self.users_unseen = self.from_future = 0
        self.earliest = int(np.iinfo(np.int64).max)

    def add(self, block: Block, labels: Labels, local: Any, has_train: Any) -> None:
        asked = labels == self.label
        has_target = np.bincount(local[asked], minlength=len(has_train)) > 0
        given = np.isin(labels, history_of(self.label)) & has_target[local]
        self.target += np.bincount(block.items[asked], minlength=len(self.target))
        self.users += int(has_target.sum())
        self.users_unseen += int((has_target & ~has_train).sum())
        self.history += int(given.sum())
        if block.times is not None and asked.any():
            first = np.full(len(has_train), np.iinfo(np.int64).max)
            np.minimum.at(first, local[asked], block.times[asked])
            self.from_future += int((block.times[given] > first[local[given]]).sum())
            self.earliest = min(self.earliest, int(first.min()))

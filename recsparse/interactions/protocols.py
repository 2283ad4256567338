"""Split protocols: each gives every interaction one label.

Labels need only what belongs to one user, and arrays as long as the users or the items; so the same functions serve a
matrix in memory and a dataset streamed part by part.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from recsparse.errors import ConfigError, DataError
from recsparse.interactions.draws import draw

TRAIN, VALIDATION, TEST, VALIDATION_HISTORY, TEST_HISTORY = range(5)
Labels = npt.NDArray[np.int8]


def history_of(target: int) -> tuple[int, ...]:
    """Labels of what a model is given when it has to find ``VALIDATION`` or ``TEST``.

    In the test, seen users' validation interactions are given as well: they must be neither recommended again nor
    counted as wrong.
    """
    return (TRAIN, VALIDATION_HISTORY) if target == VALIDATION else (TRAIN, VALIDATION, TEST_HISTORY)


Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Whole:
    """What a protocol may know of all the data before it sees any block."""

    counts: Ints
    """Interactions of each user, shape (U,)."""
    n_items: int
    timed: bool
    time_at: Callable[[float], int]
    """The time below which a fraction of all interactions lie."""


@dataclass(frozen=True)
class Block:
    """Consecutive users with all their interactions."""

    users: Ints
    """User row of each interaction, ascending."""
    items: Ints
    times: Ints | None
    first: npt.NDArray[np.int64]
    """Where in the block the interaction's user starts, for each interaction."""


Labeller = Callable[[Block], Labels]


def strong(
    whole: Whole, seed: int, *, validation: float = 0.1, test: float = 0.1, target: float = 0.2,
    order: Literal["random", "time"] = "random",
) -> Labeller:  # fmt: skip
    """Strong generalisation: unseen users, part of whom is given (history) and part is to be found (target).

    Only users with at least two interactions are held out; each keeps one for its history and has one as target.

    Args:
        whole: the data.
        seed: of the choice of users and, if random, of their targets.
        validation: users held out for tuning; a share below 1, or a number.
        test: users held out for the test.
        target: share of such a user's interactions that is to be found.
        order: whether the target is drawn, or the user's latest interactions.
    """
    _share("target", target)
    roles = _hold_out(whole.counts >= 2, draw(seed, "users", np.arange(len(whole.counts))), validation, test, "users")

    def label(block: Block) -> Labels:
        counts = whole.counts[block.users]
        wanted = np.clip(np.floor(target * counts + 1e-9), 1, None)
        last = _from_last(block, _key(block, seed, order)) < wanted
        role = roles[block.users]
        labels = np.zeros(len(role), dtype=np.int8)
        for held, history, found in ((VALIDATION, VALIDATION_HISTORY, VALIDATION), (TEST, TEST_HISTORY, TEST)):
            labels[role == held] = history
            labels[(role == held) & last] = found
        return labels

    return label


def few_shot(whole: Whole, seed: int, *, shots: int = 5, validation: float = 0.1, test: float = 0.1) -> Labeller:
    """Unseen users of whom only the first ``shots`` interactions are given; all later ones are to be found.

    Without times, "first" is a random order. Only users with more than ``shots`` interactions are held out.
    """
    if shots < 1:
        raise ConfigError(f"shots is {shots}; it must be at least 1 (for none, use the protocol cold-users).")
    roles = _hold_out(
        whole.counts > shots, draw(seed, "users", np.arange(len(whole.counts))), validation, test, "users"
    )

    def label(block: Block) -> Labels:
        late = _from_first(block, _key(block, seed, "time" if whole.timed else "random")) >= shots
        role = roles[block.users]
        history = np.array([TRAIN, VALIDATION_HISTORY, TEST_HISTORY], dtype=np.int8)[role]
        return np.where(late, role, history).astype(np.int8)

    return label


def random(
    whole: Whole, seed: int, *, validation: float = 0.1, test: float = 0.1, per: Literal["user", "global"] = "user"
) -> Labeller:
    """Random interactions: of each user exactly the shares (rounded down), or of all interactions independently."""
    _share("validation + test", validation + test)
    if per not in {"user", "global"}:
        raise ConfigError(f"per is {per!r}; it must be 'user' or 'global'.")

    def label(block: Block) -> Labels:
        key = _key(block, seed, "random")
        if per == "global":
            place = key.astype(np.float64) / 2.0**64
            return np.select([place < test, place < test + validation], [TEST, VALIDATION], TRAIN).astype(np.int8)
        counts = whole.counts[block.users]
        rank = _from_last(block, key)
        n_test, n_held = np.floor(test * counts + 1e-9), np.floor((test + validation) * counts + 1e-9)
        return np.select([rank < n_test, rank < n_held], [TEST, VALIDATION], TRAIN).astype(np.int8)

    return label


def leave_last(whole: Whole, seed: int, *, n: int = 1) -> Labeller:
    """Each user's latest ``n`` interactions are the test, the ``n`` before them the validation.

    Users with at most ``2 n`` interactions stay in training whole. Of equal times, a random order counts.
    """
    _need_times(whole, "leave-last")
    if n < 1:
        raise ConfigError(f"n is {n}; it must be at least 1.")

    def label(block: Block) -> Labels:
        rank = _from_last(block, _key(block, seed, "time"))
        labels = np.select([rank < n, rank < 2 * n], [TEST, VALIDATION], TRAIN).astype(np.int8)
        labels[whole.counts[block.users] <= 2 * n] = TRAIN
        return labels

    return label


def time(
    whole: Whole, seed: int, *, validation: float = 0.1, test: float = 0.1, validation_from: int | None = None,
    test_from: int | None = None,
) -> Labeller:  # fmt: skip
    """One moment for all: training is before it, then validation, then test.

    Args:
        whole: the data.
        seed: not used; time decides.
        validation: share of the interactions for validation, unless its moment is given.
        test: share of the interactions for the test, unless its moment is given.
        validation_from: seconds since the epoch.
        test_from: seconds since the epoch.
    """
    _need_times(whole, "time")
    _share("validation + test", validation + test)
    late = whole.time_at(1 - test) if test_from is None else test_from
    early = whole.time_at(1 - test - validation) if validation_from is None else validation_from
    if early > late:
        raise ConfigError(f"Validation starts at {early}, after the test ({late}); it must come before.")

    def label(block: Block) -> Labels:
        times = _times(block)
        return np.select([times >= late, times >= early], [TEST, VALIDATION], TRAIN).astype(np.int8)

    return label


def cold_users(whole: Whole, seed: int, *, validation: float = 0.1, test: float = 0.1) -> Labeller:
    """Unseen users of whom nothing is given but their features: the history is empty, everything is to be found."""
    roles = _hold_out(whole.counts >= 1, draw(seed, "users", np.arange(len(whole.counts))), validation, test, "users")
    return lambda block: roles[block.users]


def cold_items(whole: Whole, seed: int, *, validation: float = 0.1, test: float = 0.1) -> Labeller:
    """Items that training never sees, to be found from their features."""
    roles = _hold_out(
        np.ones(whole.n_items, dtype=np.bool_), draw(seed, "items", np.arange(whole.n_items)), validation, test, "items"
    )
    return lambda block: roles[block.items]


def half(whole: Whole, seed: int, *, per: Literal["user", "global"] = "user") -> Labeller:
    """50/25/25: random interactions, half of them for training (CIESS, BET)."""
    return random(whole, seed, validation=0.25, test=0.25, per=per)


PROTOCOLS: dict[str, Callable[..., Labeller]] = {
    "50-25-25": half,
    "cold-items": cold_items,
    "cold-users": cold_users,
    "few-shot": few_shot,
    "leave-last": leave_last,
    "random": random,
    "strong": strong,
    "time": time,
}


def _share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value}; it must be between 0 and 1.")


def _hold_out(
    eligible: npt.NDArray[np.bool_], bits: npt.NDArray[np.uint64], validation: float, test: float, what: str
) -> Labels:
    """Give each row TRAIN, VALIDATION or TEST: those with the smallest bits are the test, then the validation."""
    rows = np.flatnonzero(eligible)
    sizes = []
    for name, wanted in (("validation", validation), ("test", test)):
        if wanted < 0 or (wanted >= 1 and wanted != int(wanted)):
            raise ConfigError(f"{name} is {wanted}; it must be a share below 1 or a whole number of {what}.")
        sizes.append(int(wanted) if wanted >= 1 else int(wanted * len(eligible)))
    n_validation, n_test = sizes
    if n_validation + n_test >= len(eligible) or n_validation + n_test > len(rows):
        raise DataError(
            f"{n_validation} + {n_test} {what} cannot be held out: of {len(eligible)}, {len(rows)} have enough "
            "interactions, and some must stay for training."
        )
    order = rows[np.lexsort((rows, bits[rows]))]
    roles = np.zeros(len(eligible), dtype=np.int8)
    roles[order[:n_test]] = TEST
    roles[order[n_test : n_test + n_validation]] = VALIDATION
    return roles


def _key(block: Block, seed: int, order: str) -> npt.NDArray[np.uint64]:
    """Give what orders a user's interactions: time, ties in random order; or a random order."""
    bits = draw(seed, "interactions", block.users, block.items)
    if order == "random":
        return bits
    if order != "time":
        raise ConfigError(f"order is {order!r}; it must be 'random' or 'time'.")
    rank = np.empty(len(bits), dtype=np.uint64)
    rank[np.lexsort((bits, _times(block)))] = np.arange(len(bits), dtype=np.uint64)
    return rank


def _from_first(block: Block, key: npt.NDArray[np.uint64]) -> Ints:
    """Rank of each interaction within its user, 0 for the smallest key."""
    order = np.lexsort((key, block.users))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank - block.first


def _from_last(block: Block, key: npt.NDArray[np.uint64]) -> Ints:
    """Rank of each interaction within its user, 0 for the largest key."""
    return _from_first(block, ~key)


def _times(block: Block) -> Ints:
    if block.times is None:
        raise DataError(
            "These interactions have no times; split them by a protocol that needs none, or in random order."
        )
    return block.times


def _need_times(whole: Whole, protocol: str) -> None:
    if not whole.timed:
        raise DataError(
            f"The protocol {protocol} needs times, and these interactions have none; name a time column in build."
        )

"""How much of a user a model must know: quality against the number of history items."""

from collections.abc import Sequence

import numpy as np

from recsparse.errors import ConfigError
from recsparse.evaluation.evaluate import Evaluation, Role, evaluate
from recsparse.interactions.interactions import USER, Interactions
from recsparse.interactions.split import Holdout
from recsparse.models.base import Recommender


def few_shot_curve(
    model: Recommender,
    holdout: Holdout,
    lengths: Sequence[int] = (1, 2, 3, 5, 10),
    metrics: Sequence[str] = ("ndcg@20",),
    *,
    name: str | None = None,
    role: Role = "test",
    n_resamples: int = 1000,
    seed: int = 0,
    n_jobs: int | None = None,
) -> dict[int, Evaluation]:
    """Evaluate the same users, targets and candidates with only the first ``k`` items of each history, for each ``k``.

    All of the history stays out of the candidates at every length, so that only knowledge of the user varies. A user
    with a shorter history keeps what there is: the column ``history`` of ``per_user`` says how much that was.

    Args:
        model: fitted.
        holdout: histories and targets.
        lengths: history lengths, ascending; 0 is a user of whom nothing is known.
        metrics: see :mod:`recsparse.evaluation.metrics`.
        name: the model's label.
        role: as in :func:`evaluate`.
        n_resamples: bootstrap draws.
        seed: of the draws, and of which items are first where there are no times (or equal ones).
        n_jobs: threads that rank.

    Returns:
        An evaluation a length.
    """
    curve = {}
    for length in lengths:
        part = Holdout(first_items(holdout.history, length, seed=seed), holdout.target)
        curve[length] = evaluate(
            model, part, metrics, name=name, role=role, seen=holdout.history, fold_in=True, n_resamples=n_resamples,
            seed=seed, n_jobs=n_jobs,
        )  # fmt: skip
    return curve


def without_features(history: Interactions) -> Interactions:
    """The same users known by their histories alone."""
    return Interactions(history.matrix, history.users.select([USER]), history.items, history.times)


def first_items(history: Interactions, k: int, *, seed: int = 0) -> Interactions:
    """Keep each user's first ``k`` interactions by time; a seeded sample where times are absent or equal.

    The samples are nested: with one seed, the first 2 are among the first 3.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"user_id": [1, 1, 1], "item_id": [7, 8, 9], "time": [30, 10, 20]})
        >>> first_items(Interactions.from_frame(frame, time="time"), 2).to_frame()["item_id"].tolist()
        [8, 9]
    """
    if k < 0:
        raise ConfigError(f"A history length is {k}; it must be at least 0.")
    users = np.repeat(np.arange(history.shape[0]), np.diff(history.matrix.indptr))
    chance = np.random.default_rng(seed).random(history.nnz)
    times = np.zeros(history.nnz) if history.times is None else history.times
    order = np.lexsort((chance, times, users))
    keep = np.zeros(history.nnz, dtype=np.bool_)
    keep[order] = np.arange(history.nnz) - np.repeat(history.matrix.indptr[:-1], np.diff(history.matrix.indptr)) < k
    return history.select_entries(keep)

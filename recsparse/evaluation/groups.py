"""Every metric by popularity of items and by activity of users: whom a smaller table forgets."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsparse.errors import DataError
from recsparse.evaluation.evaluate import Evaluation
from recsparse.evaluation.intervals import Summary, summarise
from recsparse.evaluation.metrics import per_user

ITEM_GROUPS = ("head", "torso", "tail", "unseen")
USER_GROUPS = ("light", "medium", "heavy")


def popularity_groups(popularity: npt.NDArray[np.floating]) -> npt.NDArray[np.int8]:
    """Group each item, (I,): 0 head, 1 torso, 2 tail, 3 unseen.

    Items by falling popularity (ties by row); the head are the fewest that gather a third of all training
    interactions, the torso the next that bring it to two thirds, the tail the rest, and the unseen have none.

    Example:
        >>> popularity_groups(np.array([1.0, 6.0, 0.0, 1.0, 4.0])).tolist()
        [2, 0, 3, 2, 1]
    """
    order = np.argsort(-popularity, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(popularity[order], dtype=np.float64)[:-1]])
    groups = np.empty(len(popularity), dtype=np.int8)
    groups[order] = np.minimum(3.0 * before / max(popularity.sum(dtype=np.float64), 1.0), 2.0).astype(np.int8)
    groups[popularity == 0] = 3
    return groups


def by_item_group(
    evaluation: Evaluation, items: pa.Table, groups: npt.NDArray[np.integer], names: Sequence[str] = ITEM_GROUPS
) -> dict[str, dict[str, Summary]]:
    """Each metric with only the targets of one group, all items competing as before.

    Args:
        evaluation: of any model.
        items: the split's catalogue, in the order of ``groups``.
        groups: (I,), the number of each item's group, into ``names``.
        names: of the groups; those without a target are left out.

    Returns:
        Group -> metric -> summary; a user without a target in the group does not count there.
    """
    if len(groups) != items.num_rows:
        raise DataError(f"There are {len(groups)} groups for {items.num_rows} items; give each item one.")
    ranking = evaluation.ranking(items)
    found = {}
    for number, name in enumerate(names):
        part = ranking.restrict(np.asarray(groups == number))
        if len(part.ranks):
            values = np.stack([per_user(part, metric) for metric in evaluation.metrics], axis=1)
            found[name] = _summaries(evaluation, values)
    return found


def by_user_group(
    evaluation: Evaluation, groups: npt.NDArray[np.integer] | None = None, names: Sequence[str] = USER_GROUPS
) -> dict[str, dict[str, Summary]]:
    """Each metric over the users of one group: by default thirds of the users by length of their history.

    Args:
        evaluation: of any model.
        groups: (U,), the number of each user's group, into ``names``.
        names: of the groups.
    """
    if groups is None:
        length = evaluation.per_user["history"].to_numpy()
        # Equal lengths must fall in one group, or the order of users would decide.
        groups = np.searchsorted(np.quantile(length, [1 / 3, 2 / 3]), length, side="left")
    values = np.stack([evaluation.values(metric) for metric in evaluation.metrics], axis=1)
    return {
        name: _summaries(evaluation, values[groups == number])
        for number, name in enumerate(names)
        if (groups == number).any()
    }


def _summaries(evaluation: Evaluation, values: npt.NDArray[np.float64]) -> dict[str, Summary]:
    summaries = summarise(values, n_resamples=evaluation.n_resamples, seed=evaluation.seed)
    return dict(zip(evaluation.metrics, summaries, strict=True))

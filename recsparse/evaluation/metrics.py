"""Accuracy metrics of a full ranking, a value a user.

For all of them: ``T`` is the set of a user's targets (every target counts 1), ``r(t)`` the rank from 1 of target ``t``
among all items the user has not seen, ties in score to the lower item row, ``N`` the number of those items. A user
without targets gets NaN, never 0.

- ``ndcg@k``: sum of 1 / log2(r(t) + 1) over r(t) <= k, over the same sum for the ideal ranks 1 .. min(k, |T|)
- ``recall@k``: |{t : r(t) <= k}| / |T|
- ``recall_capped@k``: |{t : r(t) <= k}| / min(k, |T|), so a perfect ranking reaches 1 (Liang et al. 2018, Mult-VAE)
- ``precision@k``: |{t : r(t) <= k}| / k
- ``map@k``: sum over r(t) <= k of (targets ranked at or above t) / r(t), over min(k, |T|)
- ``mrr@k``: 1 / r of the best target, 0 where that is below k
- ``hit@k``: 1 where any r(t) <= k
- ``r_precision``: |{t : r(t) <= |T|}| / |T|
- ``auc``: share of (target, other unseen item) pairs with the target above; NaN where there is no other item

``ndcg``, ``map`` and ``mrr`` without ``@k`` take the whole ranking.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from recsparse.errors import ConfigError
from recsparse.evaluation.ranking import Ranking

PerUser = npt.NDArray[np.float64]


def per_user(ranking: Ranking, metric: str) -> PerUser:
    """One metric, (U,) float64, NaN where a user has no target.

    Example:
        >>> ranking = Ranking(np.array([0, 2]), np.array([1, 4]), np.array([7, 2], np.int32), np.array([9]), 10)
        >>> per_user(ranking, "recall@3"), per_user(ranking, "mrr")
        (array([0.5]), array([1.]))
    """
    name, k = parse(metric)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = _METRICS[name](ranking, ranking.n_items if k is None else k)
    return np.where(ranking.targets > 0, values, np.nan)


def parse(metric: str) -> tuple[str, int | None]:
    """Read ``"ndcg@10"`` as ``("ndcg", 10)``.

    Raises:
        ConfigError: the metric is unknown, or lacks or must not have its cut-off.
    """
    match = re.fullmatch(r"([a-z_]+)(?:@([1-9][0-9]*))?", metric)
    if match is None or match[1] not in _METRICS:
        raise ConfigError(f"There is no metric {metric!r}; there are {', '.join(sorted(_METRICS))}, most with @k.")
    name, k = match[1], None if match[2] is None else int(match[2])
    if k is None and name in _NEEDS_CUT_OFF:
        raise ConfigError(f"{metric!r} needs a cut-off, {metric}@10 for instance.")
    if k is not None and name in _WHOLE:
        raise ConfigError(f"{name!r} takes the whole ranking; write it without @{k}.")
    return name, k


def check_metrics(metrics: Sequence[str]) -> tuple[str, ...]:
    """Parse all names before any work is done."""
    if not metrics or len(set(metrics)) != len(metrics):
        raise ConfigError(f"The metrics are {list(metrics)}; name at least one, and each once.")
    for metric in metrics:
        parse(metric)
    return tuple(metrics)


def _discount(ranks: npt.NDArray[np.int64]) -> PerUser:
    discount: PerUser = 1.0 / np.log2(ranks + 1.0)
    return discount


def _ndcg(ranking: Ranking, k: int) -> PerUser:
    ideal = np.concatenate([[0.0], np.cumsum(_discount(np.arange(1, max(ranking.targets, default=0) + 1)))])
    gained = ranking.total(np.where(ranking.ranks <= k, _discount(ranking.ranks), 0.0))
    reached: PerUser = gained / ideal[np.minimum(ranking.targets, k)]
    return reached


def _hits(ranking: Ranking, k: int) -> PerUser:
    return ranking.total((ranking.ranks <= k).astype(np.float64))


def _recall(ranking: Ranking, k: int) -> PerUser:
    return _hits(ranking, k) / ranking.targets


def _recall_capped(ranking: Ranking, k: int) -> PerUser:
    return _hits(ranking, k) / np.minimum(ranking.targets, k)


def _precision(ranking: Ranking, k: int) -> PerUser:
    return _hits(ranking, k) / k


def _map(ranking: Ranking, k: int) -> PerUser:
    precision = np.where(ranking.ranks <= k, ranking.position / ranking.ranks, 0.0)
    return ranking.total(precision) / np.minimum(ranking.targets, k)


def _mrr(ranking: Ranking, k: int) -> PerUser:
    best = (ranking.position == 1) & (ranking.ranks <= k)
    return ranking.total(np.where(best, 1.0 / ranking.ranks, 0.0))


def _hit(ranking: Ranking, k: int) -> PerUser:
    return (_hits(ranking, k) > 0).astype(np.float64)


def _r_precision(ranking: Ranking, k: int) -> PerUser:
    return ranking.total((ranking.ranks <= ranking.targets[ranking.users]).astype(np.float64)) / ranking.targets


def _auc(ranking: Ranking, k: int) -> PerUser:
    others = ranking.candidates - ranking.targets
    others_above = ranking.total((ranking.ranks - ranking.position).astype(np.float64))
    return np.subtract(1.0, others_above / (ranking.targets * others))


_METRICS: dict[str, Callable[[Ranking, int], PerUser]] = {
    "ndcg": _ndcg,
    "recall": _recall,
    "recall_capped": _recall_capped,
    "precision": _precision,
    "map": _map,
    "mrr": _mrr,
    "hit": _hit,
    "r_precision": _r_precision,
    "auc": _auc,
}
_NEEDS_CUT_OFF = {"recall", "recall_capped", "precision", "hit"}
_WHOLE = {"r_precision", "auc"}

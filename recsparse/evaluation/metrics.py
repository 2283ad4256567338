"""Accuracy metrics of a full ranking, a value a user.

For all of them: ``T`` is the set of a user's targets (every target counts 1), ``r(t)`` the rank from 1 of target ``t``
among all items the user has not seen, ``N`` the number of those items. A user without targets gets NaN, never 0.

**Ties.** Items of equal score have no order, so a metric is its expected value over all orders of them, each as likely
(McSherry and Najork, "Computing Information Retrieval Performance Measures Efficiently in the Presence of Tied Scores",
2008): a model that scores all cold items alike reaches there what chance does, whatever the order of the rows. Lists to
be shown need an order all the same: in ``recommend``, batch scoring and what is measured of lists (coverage, diversity,
overlap) ties go to the lower item row.

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
from recsparse.kernels.metrics import first_hits

PerUser = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


def per_user(ranking: Ranking, metric: str) -> PerUser:
    """One metric, (U,) float64, NaN where a user has no target.

    Example:
        >>> items = np.array([7, 2], np.int32)
        >>> ranking = Ranking(np.array([0, 2]), np.array([1, 3]), np.array([1, 2]), items, np.array([9]), 10)
        >>> per_user(ranking, "recall@3"), per_user(ranking, "mrr")  # the second is at 3 or at 4
        (array([0.75]), array([1.]))
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


def _gain(ranking: Ranking, k: int | Places, gains: PerUser) -> tuple[Places, PerUser]:
    """The expected gain of each entry, where place ``r`` up to ``k`` (one an entry, or for all) gains ``gains[r - 1]``.

    Given are the entries that can gain anything, and what they gain.
    """
    at = np.flatnonzero(ranking.ranks <= k)
    ranks, ties = ranking.ranks[at], ranking.ties[at]
    summed = np.concatenate([[0.0], np.cumsum(gains)])
    last = np.minimum(ranks + ties - 1, k if isinstance(k, int) else k[at])
    return at, (summed[last] - summed[ranks - 1]) / ties


def _ndcg(ranking: Ranking, k: int) -> PerUser:
    discounts = 1.0 / np.log2(np.arange(1, ranking.n_items + 1) + 1.0)
    ideal = np.concatenate([[0.0], np.cumsum(discounts)])
    at, gain = _gain(ranking, k, discounts)
    reached: PerUser = ranking.total(gain, at) / ideal[np.minimum(ranking.targets, k)]
    return reached


def _hits(ranking: Ranking, k: int | Places) -> PerUser:
    """The expected number of targets in the first ``k``."""
    at, gain = _gain(ranking, k, np.ones(ranking.n_items))
    return ranking.total(gain, at)


def _recall(ranking: Ranking, k: int) -> PerUser:
    return _hits(ranking, k) / ranking.targets


def _recall_capped(ranking: Ranking, k: int) -> PerUser:
    return _hits(ranking, k) / np.minimum(ranking.targets, k)


def _precision(ranking: Ranking, k: int) -> PerUser:
    return _hits(ranking, k) / k


def _map(ranking: Ranking, k: int) -> PerUser:
    # Of the others of its level, a target at the p-th of t places has (p - 1) / (t - 1) of them before it on average.
    at, harmonic = _gain(ranking, k, 1.0 / np.arange(1, ranking.n_items + 1))
    _, places = _gain(ranking, k, np.ones(ranking.n_items))
    above, level = (counts[at] for counts in ranking.level)
    crowd = (level - 1) / np.maximum(ranking.ties[at] - 1, 1)
    precision = (above + 1) * harmonic + crowd * (places - ranking.ranks[at] * harmonic)
    return ranking.total(precision, at) / np.minimum(ranking.targets, k)


def _first_hits(ranking: Ranking, k: int) -> tuple[PerUser, PerUser]:
    there = ranking.targets > 0
    best = ranking.indptr[:-1][there]
    hit, reciprocal = np.zeros((2, ranking.n_users))
    found = np.empty((2, len(best)))
    first_hits(ranking.ranks[best], ranking.ties[best], ranking.level[1][best], k, *found)
    hit[there], reciprocal[there] = found
    return hit, reciprocal


def _mrr(ranking: Ranking, k: int) -> PerUser:
    return _first_hits(ranking, k)[1]


def _hit(ranking: Ranking, k: int) -> PerUser:
    return _first_hits(ranking, k)[0]


def _r_precision(ranking: Ranking, k: int) -> PerUser:
    return _hits(ranking, ranking.targets[ranking.users]) / ranking.targets


def _auc(ranking: Ranking, k: int) -> PerUser:
    others = ranking.candidates - ranking.targets
    others_above = ranking.total(ranking.ranks + (ranking.ties - 1) / 2 - ranking.position)
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

"""Who beats whom, by how much, and how certain that is: always user by user on the same users."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from recsparse.errors import DataError
from recsparse.evaluation.evaluate import Evaluation
from recsparse.evaluation.intervals import summarise
from recsparse.interactions.interactions import USER


@dataclass(frozen=True)
class Difference:
    """A paired comparison of two models on one metric.

    Attributes:
        a: one model.
        b: the other.
        metric: what is compared.
        users: users with a value in both.
        mean_a: mean of ``a`` over them.
        mean_b: mean of ``b``.
        difference: ``mean_a - mean_b``.
        low: lower end of its bootstrap interval over users.
        high: upper end.
        wins: users for whom ``a`` is above.
        losses: users for whom ``b`` is above.
        p_t: paired t test, two-sided.
        p_wilcoxon: Wilcoxon's signed-rank test.
        p_permutation: the signs of the differences permuted; NaN where it was not asked for.
        p_holm: ``p_t`` corrected for all comparisons made together (Holm 1979).
    """

    a: str
    b: str
    metric: str
    users: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    wins: int
    losses: int
    p_t: float
    p_wilcoxon: float
    p_permutation: float
    p_holm: float

    def to_dict(self) -> dict[str, str | int | float]:
        """The fields, ready for JSON."""
        return asdict(self)


def paired(
    a: Evaluation,
    b: Evaluation,
    metrics: Sequence[str] | None = None,
    *,
    n_resamples: int = 1000,
    n_permutations: int = 0,
    seed: int = 0,
) -> list[Difference]:
    """Compare two models user by user; the Holm correction is over the metrics compared.

    Args:
        a: one model's evaluation.
        b: another's, of the same users, histories and targets.
        metrics: which; those both have by default.
        n_resamples: bootstrap draws of the interval.
        n_permutations: draws of the permutation test; 0 leaves it out (it is the slow one).
        seed: of the draws.

    Raises:
        DataError: the evaluations are of different splits, or share no metric.
    """
    check_comparable(a, b)
    names = [metric for metric in a.metrics if metric in b.metrics] if metrics is None else list(metrics)
    if not names:
        raise DataError(f"{a.name} has {list(a.metrics)} and {b.name} {list(b.metrics)}: no metric in common.")
    return holm([_difference(a, b, metric, (n_resamples, n_permutations, seed)) for metric in names])


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """Correct ``p_t`` over all of these comparisons: step down, ``max over j <= i of (m - j) p_(j)``, at most 1."""
    p = np.array([difference.p_t for difference in differences])
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected = np.full(len(p), np.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(order) - np.arange(len(order)))))
    return [replace(one, p_holm=float(value)) for one, value in zip(differences, corrected, strict=True)]


def check_comparable(a: Evaluation, b: Evaluation) -> None:
    """Refuse evaluations of different users, histories, targets or role.

    Raises:
        DataError: it says which.
    """
    if a.split != b.split:
        raise DataError(
            f"{a.name} and {b.name} were evaluated on different splits ({a.split[:12]} and {b.split[:12]}); figures of "
            "different splits cannot be compared."
        )
    if not a.per_user[USER].equals(b.per_user[USER]):
        raise DataError(f"{a.name} and {b.name} hold their users in another order; pool both (one seed will do).")
    if a.role != b.role:
        raise DataError(f"{a.name} was evaluated for {a.role}, {b.name} for {b.role}; compare like with like.")


def _difference(a: Evaluation, b: Evaluation, metric: str, draws: tuple[int, int, int]) -> Difference:
    n_resamples, n_permutations, seed = draws
    values_a, values_b = a.values(metric), b.values(metric)
    there = ~np.isnan(values_a) & ~np.isnan(values_b)
    gap = (values_a - values_b)[there]
    [summary] = summarise((values_a - values_b)[:, None], n_resamples=n_resamples, seed=seed)
    return Difference(
        a=a.name,
        b=b.name,
        metric=metric,
        users=len(gap),
        mean_a=_mean(values_a[there]),
        mean_b=_mean(values_b[there]),
        difference=summary.mean,
        low=summary.low,
        high=summary.high,
        wins=int((gap > 0).sum()),
        losses=int((gap < 0).sum()),
        p_holm=np.nan,
        **_p_values(gap, n_permutations, seed),
    )


def _p_values(gap: npt.NDArray[np.float64], n_permutations: int, seed: int) -> dict[str, float]:
    """Two-sided p values that the mean (or median) difference is 0; where nothing differs, 1: no evidence at all."""
    if len(gap) < 2:
        return {"p_t": np.nan, "p_wilcoxon": np.nan, "p_permutation": np.nan}
    if not gap.any():
        return {"p_t": 1.0, "p_wilcoxon": 1.0, "p_permutation": 1.0 if n_permutations else np.nan}
    p_permutation = np.nan
    if n_permutations:
        p_permutation = stats.permutation_test(
            (gap,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=n_permutations,
            vectorized=True, batch=256, rng=np.random.default_rng(seed),
        ).pvalue  # fmt: skip
    # A constant difference has no variance: t is infinite and p is 0.
    p_t = 0.0 if np.ptp(gap) == 0 else stats.ttest_1samp(gap, 0.0).pvalue
    return {
        "p_t": float(p_t),
        "p_wilcoxon": float(stats.wilcoxon(gap).pvalue),
        "p_permutation": float(p_permutation),
    }


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else np.nan

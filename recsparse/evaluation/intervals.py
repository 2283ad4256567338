"""Means over users with their bootstrap intervals."""

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Summary:
    """A mean over users.

    Attributes:
        mean: over the users who have a value; NaN where nobody has.
        low: lower end of the interval.
        high: upper end.
        users: how many users the mean rests on.
        without: how many had no value (no target, say) and are left out.
    """

    mean: float
    low: float
    high: float
    users: int
    without: int = 0

    def to_dict(self) -> dict[str, float | int]:
        """The fields, ready for JSON."""
        return asdict(self)


def summarise(
    values: npt.NDArray[np.float64], *, n_resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> list[Summary]:
    """The mean of each column and its percentile bootstrap interval over rows (Efron 1979).

    The same resampled users serve every column, and, at equal ``seed`` and number of users, every model, so that
    intervals of models are made of the same draws. ``scipy.stats.bootstrap(method="percentile")`` gives the same
    interval but gathers columns x resamples x users; a product with the counts of each draw does not.

    Args:
        values: (U, M) float64, a row a user, a column a metric; NaN where a user has no value.
        n_resamples: draws of U users with replacement.
        confidence: two-sided.
        seed: of the draws.

    Returns:
        M summaries.

    Example:
        >>> [half] = summarise(np.array([[0.0], [1.0], [0.0], [1.0], [np.nan]]))
        >>> half.mean, half.users, half.without
        (0.5, 4, 1)
    """
    n_users, n_columns = values.shape
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    counts = there.sum(axis=0)
    sums = np.empty((n_resamples, n_columns))
    sizes = np.empty((n_resamples, n_columns))
    rng = np.random.default_rng(seed)
    step = max(1, (32 << 20) // (8 * max(n_users, 1)))
    for start in range(0, n_resamples, step):
        draws = min(step, n_resamples - start)
        drawn = rng.integers(0, max(n_users, 1), size=(draws, n_users)) + np.arange(draws)[:, None] * n_users
        weights = np.bincount(drawn.ravel(), minlength=draws * n_users).reshape(draws, n_users).astype(np.float64)
        sums[start : start + draws] = weights @ filled
        sizes[start : start + draws] = weights @ there
    tail = (1.0 - confidence) / 2.0
    summaries = []
    for column in range(n_columns):
        drawn_something = sizes[:, column] > 0
        if counts[column] == 0:
            summaries.append(Summary(np.nan, np.nan, np.nan, 0, n_users))
            continue
        means = sums[drawn_something, column] / sizes[drawn_something, column]
        low, high = np.quantile(means, [tail, 1.0 - tail])
        mean = filled[:, column].sum() / counts[column]
        summaries.append(
            Summary(float(mean), float(low), float(high), int(counts[column]), int(n_users - counts[column]))
        )
    return summaries

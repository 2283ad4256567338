"""Several seeds or splits of one recipe as one evaluation, with the user as the unit."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from recsparse.errors import DataError
from recsparse.evaluation.evaluate import Evaluation
from recsparse.interactions.interactions import USER


def pool(
    evaluations: Sequence[Evaluation], metrics: Sequence[str] | None = None, *, name: str | None = None
) -> Evaluation:
    """Average each user's values over all evaluations in which the user has one.

    A user measured under five seeds is one observation, not five: stacking them would make intervals about sqrt(5) too
    narrow. How far seeds differ is :func:`seed_spread`.

    Args:
        evaluations: of one recipe: several seeds on one split, or several splits.
        metrics: which; those measured by default, others are computed from the ranks.
        name: of the whole; that of the first by default.

    Returns:
        An evaluation without ranks (each seed has its own), comparable with others pooled over the same splits.
    """
    if not evaluations:
        raise DataError("There is no evaluation to pool; pass at least one.")
    first = evaluations[0]
    for other in evaluations[1:]:
        if (metrics is None and other.metrics != first.metrics) or other.role != first.role:
            raise DataError(f"{other.name} measured {other.metrics} for {other.role}, {first.name} {first.metrics} for "
                            f"{first.role}; pool like with like.")  # fmt: skip
    names = first.metrics if metrics is None else tuple(metrics)
    frames = [
        one.per_user.select([USER, "history", "candidates"]).to_pandas().assign(**{m: one.values(m) for m in names})
        for one in evaluations
    ]
    whole = pd.concat(frames).groupby(USER, sort=True).mean().reset_index()
    table = pa.Table.from_pandas(whole, preserve_index=False)
    splits = sorted({one.split for one in evaluations})
    split = splits[0] if len(splits) == 1 else hashlib.sha256("".join(splits).encode()).hexdigest()
    return Evaluation(
        name=first.name if name is None else name, role=first.role, split=split, metrics=names, per_user=table,
        n_resamples=first.n_resamples, seed=first.seed,
    )  # fmt: skip


def seed_spread(evaluations: Sequence[Evaluation], metric: str) -> float:
    """Standard deviation (n - 1) of the mean of a metric between seeds; NaN with fewer than two."""
    means = [float(np.nanmean(one.values(metric))) for one in evaluations]
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")

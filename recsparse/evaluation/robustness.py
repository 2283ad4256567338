"""What noise in training, and training itself, do to a model: robustness and over-fitting."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.base import clone

from recsparse.evaluation.evaluate import Evaluation, evaluate
from recsparse.evaluation.mixing import add_noise
from recsparse.evaluation.pool import pool
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout, Split
from recsparse.models.base import Recommender

NOISE = (0.0, 0.05, 0.1, 0.2, 0.4)


def noise_curve(
    models: Mapping[str, Recommender],
    split: Split,
    metrics: Sequence[str] = ("ndcg@20",),
    *,
    shares: Sequence[float] = NOISE,
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[str, dict[float, Evaluation]]:
    """Fit each model anew on training data with so much noise, and evaluate it on the untouched test users.

    All models get the same noise, none of it a target of the test, and each user's values are averaged over the seeds
    of the noise.

    Args:
        models: label -> estimator; it is cloned, so it need not be fitted and stays as it is.
        split: only its training part is made noisy.
        metrics: see :mod:`recsparse.evaluation.metrics`.
        shares: added interactions over those there are.
        seeds: of the noise.

    Returns:
        Label -> share -> evaluation pooled over the seeds.
    """
    curves: dict[str, dict[float, Evaluation]] = {label: {} for label in models}
    for share in shares:
        drawn = seeds if share else seeds[:1]
        noisy = [add_noise(split.train, share, seed=seed, spare=split.test.target) for seed in drawn]
        for label, model in models.items():
            evaluations = [evaluate(clone(model).fit(train), split.test, metrics, name=label) for train in noisy]
            curves[label][share] = pool(evaluations)
    return curves


def recalled(
    model: Recommender,
    train: Interactions,
    metrics: Sequence[str] = ("ndcg@20",),
    *,
    target: float = 0.2,
    users: int = 1000,
    name: str | None = None,
    seed: int = 0,
) -> Evaluation:
    """How well the model finds training interactions it was fitted on; less the test figure, how far it over-fits.

    A share of each sampled training user's interactions is left out of the history and asked for, just as on test
    users, only that the model has seen them.

    Args:
        model: fitted on ``train``.
        train: what it was fitted on.
        metrics: see :mod:`recsparse.evaluation.metrics`.
        target: the share asked for, as in the split that is compared with; at least one of each user.
        users: at most so many, sampled.
        name: the model's label.
        seed: of the sample.
    """
    rng = np.random.default_rng(seed)
    eligible = np.flatnonzero(np.diff(train.matrix.indptr) > 1)
    chosen = np.sort(rng.permutation(eligible)[:users])
    part = train.select_users(chosen)
    sizes = np.diff(part.matrix.indptr)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((rng.random(part.nnz), owner))
    asked = np.zeros(part.nnz, dtype=np.bool_)
    place = np.arange(part.nnz) - np.repeat(part.matrix.indptr[:-1], sizes)
    asked[order] = place < np.maximum(1, (target * sizes).astype(np.int64))[owner]
    holdout = Holdout(part.select_entries(~asked), part.select_entries(asked))
    return evaluate(model, holdout, metrics, name=name, role="train", fold_in=True, seed=seed)

"""Fit one model as a command or a pipeline file asks for it: stopped early, gone on with, and heard of."""

from pathlib import Path
from typing import Any

from recsparse.errors import ConfigError
from recsparse.interactions import Holdout, Interactions
from recsparse.interactions.download import Progress
from recsparse.models import Recommender
from recsparse.models.base import trains_in_epochs


def fit(
    model: Recommender,
    params: dict[str, Any],
    train: Interactions,
    validation: Holdout | None,
    tell: Progress,
    *,
    headline: str | None = None,
    checkpoint: Path | None = None,
    where: str = "params",
) -> Recommender:
    """Fit a model; where ``patience`` is among its settings, by the validation users' metric after each epoch.

    A model that was stopped early has the number of its best epoch as ``epochs``, so that whoever fits it again, on
    other data, trains as long.

    Args:
        model: what :func:`recsparse.pipeline.rows.make` gave; if it diverges, it is that of an earlier epoch.
        params: its settings.
        train: what to learn from.
        validation: asked only if ``patience`` is set; None where there are no such users.
        tell: hears of each epoch and its metric: "epoch 3, ndcg@20 0.4132", 3, 10.
        headline: the metric to stop by, unless the settings name one.
        checkpoint: a file written after each epoch, that a training which was killed goes on from.
        where: the settings come from, for errors.

    Raises:
        ConfigError: a setting that this model or these data cannot follow.
        DivergenceError: training ended in infinite or NaN values.
    """
    if not trains_in_epochs(model):
        if checkpoint is not None:
            raise ConfigError(
                f"{model.kind} is not trained in epochs that a checkpoint could go on from; leave it out."
            )
        return model.fit(train)
    by_epoch: dict[str, Any] = {"checkpoint": checkpoint}
    stops = "patience" in params
    if stops:
        if validation is None or validation.target.nnz == 0:
            raise ConfigError(f"{where}.patience needs validation users; train on what `recsparse split` wrote.")
        by_epoch["validation"] = validation
        if headline is not None and "metric" not in params:
            model.set_params(metric=headline)

    def on_epoch(number: int, metric: float | None) -> None:
        measured = "" if metric is None else f", {model.get_params()['metric']} {metric:.4f}"
        tell(f"epoch {number}{measured}", number, model.get_params()["epochs"])

    model.fit(train, **by_epoch | {"on_epoch": on_epoch})
    if stops:
        model.set_params(epochs=model.best_epoch_)
    return model

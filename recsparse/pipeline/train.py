"""Train one model of a pipeline: choose its settings on the validation users, fit, pack, save."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsparse.config import RunConfig
from recsparse.evaluation import Evaluation, evaluate
from recsparse.files import atomic_file
from recsparse.interactions import Split
from recsparse.models import Recommender
from recsparse.models.factors import FactorModel
from recsparse.pipeline.rows import Training, make, with_settings

_ABOUT = "training.json"


@dataclass(frozen=True)
class Fitted:
    """What training decided and took, beside the model it saved.

    Attributes:
        params: the settings, those tuned included.
        validation: metric -> mean, interval and users, on the validation users.
        fit_seconds: the chosen fit alone.
        convert_seconds: from the trained array to the packed table.
    """

    params: dict[str, Any]
    validation: dict[str, Any]
    fit_seconds: float
    convert_seconds: float

    @classmethod
    def read(cls, directory: Path) -> "Fitted":
        """Read what :func:`train` wrote beside a model."""
        return cls(**json.loads((directory / _ABOUT).read_text()))


def train(training: Training, split: Split, config: RunConfig, directories: dict[str, Path]) -> float:
    """Fit every candidate, keep the best by the headline metric on the validation users, and save it.

    Args:
        training: what to train.
        split: only its training part is learned from.
        config: for the metrics.
        directories: where each value type's model goes.

    Returns:
        Seconds it took.
    """
    started = time.perf_counter()
    headline = config.evaluation.headline
    best: tuple[float, Recommender, dict[str, Any], float] | None = None
    for settings in training.candidates:
        params = with_settings(training.params, settings)
        began = time.perf_counter()
        model = make(training.kind, params).fit(split.train)
        seconds = time.perf_counter() - began
        quality = _validate(model, split, [headline]).summaries[headline].mean if len(training.candidates) > 1 else 0.0
        if best is None or quality > best[0]:
            best = quality, model, params, seconds
    assert best is not None  # noqa: S101 (there is at least one candidate)
    _, model, params, seconds = best
    for value_type, directory in directories.items():
        began = time.perf_counter()
        packed = model.repack(value_type) if isinstance(model, FactorModel) else model
        took = time.perf_counter() - began
        packed.save(directory, overwrite=True)
        summaries = _validate(packed, split, config.evaluation.metrics).summaries
        about = {
            "params": params,
            "validation": {metric: summary.to_dict() for metric, summary in summaries.items()},
            "fit_seconds": seconds,
            "convert_seconds": took,
        }
        with atomic_file(directory / _ABOUT) as partial:
            partial.write_text(json.dumps(about, indent=1))
    return time.perf_counter() - started


def _validate(model: Recommender, split: Split, metrics: Sequence[str]) -> Evaluation:
    return evaluate(model, split.validation, metrics, role="validation")

"""Train one model of a pipeline: choose its settings on the validation users, fit, pack, save."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsparse.config import RunConfig
from recsparse.evaluation import Evaluation, evaluate
from recsparse.files import atomic_file
from recsparse.interactions import Split
from recsparse.models import Recommender
from recsparse.models.factors import FactorModel
from recsparse.pipeline.rows import Training, with_settings
from recsparse.report.costs import peak_memory

_ABOUT = "training.json"
Fit = Callable[[dict[str, Any]], Recommender]


@dataclass(frozen=True)
class Fitted:
    """What training decided and took, beside the model it saved.

    Attributes:
        params: the settings, those tuned included.
        validation: metric -> mean, interval and users, on the validation users.
        fit_seconds: the chosen fit alone.
        peak_memory_bytes: of the process during it; None where the system does not tell, or several processes trained.
        convert_seconds: from the trained array to the packed table.
    """

    params: dict[str, Any]
    validation: dict[str, Any]
    fit_seconds: float
    peak_memory_bytes: int | None
    convert_seconds: float

    @classmethod
    def read(cls, directory: Path) -> "Fitted":
        """Read what :func:`train` wrote beside a model."""
        return cls(**json.loads((directory / _ABOUT).read_text()))


def train(training: Training, split: Split, config: RunConfig, directories: dict[str, Path], fit: Fit) -> float:
    """Fit every candidate, keep the best by the headline metric on the validation users, and save it.

    Args:
        training: what to train.
        split: only its training part is learned from.
        config: for the metrics.
        directories: where each value type's model goes.
        fit: gives the model that settings make of the split's training part.

    Returns:
        Seconds it took.
    """
    started = time.perf_counter()
    headline = config.evaluation.headline
    fits = (_fit(training, settings, split, headline, fit) for settings in training.candidates)
    model, cost, _ = max(fits, key=lambda fit: fit[2])
    for value_type, directory in directories.items():
        began = time.perf_counter()
        packed = model.repack(value_type) if isinstance(model, FactorModel) else model
        took = time.perf_counter() - began
        packed.save(directory, overwrite=True)
        validated = _validate(packed, split, config.evaluation.metrics)
        validated.save(directory / "validation.parquet")
        about = {
            **cost,
            "validation": {metric: summary.to_dict() for metric, summary in validated.summaries.items()},
            "convert_seconds": took,
        }
        with atomic_file(directory / _ABOUT) as partial:
            partial.write_text(json.dumps(about, indent=1))
    return time.perf_counter() - started


def _fit(
    training: Training, settings: dict[str, Any], split: Split, headline: str, fit: Fit
) -> tuple[Recommender, dict[str, Any], float]:
    """Fit one candidate: the model, what it took, and its quality where there is a choice."""
    params = with_settings(training.params, settings)
    began = time.perf_counter()
    with peak_memory() as peak:
        model = fit(params)
    took = time.perf_counter() - began
    cost = {"params": params, "fit_seconds": took, "peak_memory_bytes": None if training.ranks else peak.bytes}
    if len(training.candidates) == 1:
        return model, cost, 0.0
    return model, cost, _validate(model, split, [headline]).summaries[headline].mean


def _validate(model: Recommender, split: Split, metrics: Sequence[str]) -> Evaluation:
    return evaluate(model, split.validation, metrics, role="validation")

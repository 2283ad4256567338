"""The rows of a finished run in MLflow and TensorBoard, where the pipeline file says so."""

from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec

from recsparse.config import Tracking
from recsparse.errors import ConfigError
from recsparse.report import Results
from recsparse.report.results import Row
from recsparse.tracking import MLflow, TensorBoard, Tracker
from recsparse.tracking.tracker import INSTALL


def check_installed(wanted: Tracking) -> None:
    """Refuse before anything has run what could not be kept at the end.

    Raises:
        ConfigError: a tracker that is asked for is not installed.
    """
    for module, value in (("mlflow", wanted.mlflow), ("tensorboard", wanted.tensorboard)):
        if value is not None and find_spec(module) is None:
            raise ConfigError(f"tracking.{module}: {INSTALL}")


def track(results: Results, wanted: Tracking, ship: str) -> None:
    """Keep each row: its settings, its figures, and the few-shot curve with the history's length as the step.

    What these results left when they were tracked before, up to a kill for instance, is replaced.
    """
    for row in results.rows:
        settings = {"model": row.model, "value_type": row.value_type, **row.params}
        with ExitStack() as stack:
            places = list[Tracker]()
            if wanted.mlflow is not None:
                tags = {"family": row.family, "ship": str(row.label == ship).lower(), "split": results.split.digest}
                tags["report"] = results.created
                place = MLflow(row.label, settings, uri=wanted.mlflow, experiment=results.run, tags=tags, replace=True)
                places.append(stack.enter_context(place))
            if wanted.tensorboard is not None:
                directory = wanted.tensorboard / results.run / row.label.replace(" ", "-")
                places.append(stack.enter_context(TensorBoard(directory, settings, replace=True)))
            for each in places:
                each.log(dict(_figures(row)))
                for point in row.few_shot:
                    each.log({f"few-shot/{name}": value.mean for name, value in point.metrics.items()}, point.history)


def _figures(row: Row) -> Iterator[tuple[str, float]]:
    for role, measured in (("test", row.metrics), ("validation", row.validation)):
        for name, value in measured.items():
            yield f"{role}/{name}", value.mean
    sizes = {"bytes": row.bytes_total, "bytes_per_item": row.bytes_per_item, "density": row.density}
    for name, figure in (sizes | {"fit_seconds": row.cost.fit_seconds}).items():
        if figure is not None:
            yield name, figure

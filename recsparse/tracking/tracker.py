"""What a training's entry in any tracker is."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

INSTALL = "Tracking needs MLflow and TensorBoard: pip install 'recsparse[tracking]'."


class Tracker(ABC):
    """One training's entry: its settings, then figures, each at a step.

    It is an ``on_epoch`` of the models that have epochs: after each it keeps the validation metric, where there is one,
    and the seconds since the entry was opened. Leaving its ``with`` block closes it, as failed after an error.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()

    def __call__(self, epoch: int, metric: float | None) -> None:
        """Keep what an epoch gave; see :data:`recsparse.models.ials.OnEpoch`."""
        figures = {"seconds": time.perf_counter() - self._began}
        self.log(figures if metric is None else figures | {"validation": metric}, step=epoch)

    @abstractmethod
    def log(self, figures: Mapping[str, float], step: int = 0) -> None:
        """Keep figures by name."""

    @abstractmethod
    def close(self, *, failed: bool = False) -> None:
        """Say that no more will come."""

    def __enter__(self) -> Self:
        """Give the entry itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close(failed=kind is not None)


def flat(settings: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, Any]]:
    """Settings with dotted names for nested ones.

    >>> dict(flat({"dim": 8, "recipe": {"density": 0.5, "schedule": {"kind": "gradual"}}}))
    {'dim': 8, 'recipe.density': 0.5, 'recipe.schedule.kind': 'gradual'}
    """
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{inside}{name}.")
        else:
            yield f"{inside}{name}", value

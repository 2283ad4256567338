"""Sharded training on torchrec: start it with torchrun, with ``train_on_ranks``, or call ``train`` in one process."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recsparse.errors import ConfigError

if TYPE_CHECKING:
    from recsparse.distributed.config import Budget, TableSettings, TrainConfig
    from recsparse.distributed.launch import train_on_ranks
    from recsparse.distributed.model import load_model
    from recsparse.distributed.planning import Plan, PlannedTable, plan
    from recsparse.distributed.run import train

__all__ = [
    "Budget",
    "Plan",
    "PlannedTable",
    "TableSettings",
    "TrainConfig",
    "load_model",
    "plan",
    "train",
    "train_on_ranks",
]

_HOMES = {
    "Budget": "config",
    "Plan": "planning",
    "PlannedTable": "planning",
    "TableSettings": "config",
    "TrainConfig": "config",
    "load_model": "model",
    "plan": "planning",
    "train": "run",
    "train_on_ranks": "launch",
}


def __getattr__(name: str) -> Any:
    """Import on first use: torch and torchrec take seconds, and torchrec may not be installed."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("torchrec", "fbgemm_gpu"):
            raise
        raise ConfigError(
            f"Sharded training needs {error.name}, which is not installed; `recsparse doctor` says how to get it."
        ) from error

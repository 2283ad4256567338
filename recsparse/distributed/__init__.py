"""Sharded training on torchrec: ``recsparse train --ranks N``, ``train_on_ranks``, torchrun, or ``train`` alone."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from recsparse.distributed.require import require_torchrec

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
    if _HOMES[name] == "run":
        require_torchrec()
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

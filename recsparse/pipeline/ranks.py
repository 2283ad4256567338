"""A model of a pipeline whose tables are sharded over ranks while it trains."""

from pathlib import Path
from typing import Any

from recsparse.distributed import TrainConfig, load_model, train_on_ranks
from recsparse.errors import ConfigError
from recsparse.interactions.download import Progress
from recsparse.models import MF


def check_sharded(params: dict[str, Any], where: str) -> None:
    """Refuse settings that a sharded training in a pipeline does not have.

    Raises:
        ConfigError: it names the setting.
    """
    if given := sorted({"data", "output"} & params.keys()):
        raise ConfigError(f"{where}: {given[0]}: the pipeline says where its split and its models are; leave it out.")
    TrainConfig.parse({"data": ".", "output": ".", **params}, where)


def fit_on_ranks(params: dict[str, Any], ranks: int, split: Path, output: Path, tell: Progress) -> MF:
    """Train on processes here and give the whole model; from ``output``'s last checkpoint on, if it has one.

    Args:
        params: of :class:`recsparse.distributed.TrainConfig`, without ``data`` and ``output``.
        ranks: processes.
        split: the split's directory.
        output: for checkpoints and shards; the model's item table is mapped from it.
        tell: told how far training has come.
    """
    config = TrainConfig.parse({"data": split, "output": output, **params})
    train_on_ranks(config, ranks, say=lambda line: tell(line, 0, None))
    return load_model(output)

"""A sharded training as an estimator on one machine, to evaluate, recommend and save like any other."""

import json
from pathlib import Path

import numpy as np

from recsparse.distributed.config import TrainConfig
from recsparse.errors import FormatError
from recsparse.interactions import read
from recsparse.models.mf import MF
from recsparse.tables import load_table


def load_model(output: str | Path) -> MF:
    """Open what sharded training left in ``output``; the item table stays in its files, mapped into memory.

    Users are those trained on; others are folded in as :class:`recsparse.models.mf.MF` does it. What features say is in
    the tables already.

    Raises:
        FormatError: training has not ended there, or a file is missing.
    """
    output = Path(output)
    try:
        summary = json.loads((output / "training.json").read_text())
        settings, validation = summary["settings"], summary["validation"]
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(f"{output} holds no sharded training that has ended ({error!r}).") from error
    config = TrainConfig.parse(settings, str(output / "training.json"))
    model = MF(
        config.dim, loss=config.loss, n_negatives=config.n_negatives, negative_weight=config.negative_weight,
        optimiser=config.optimiser, learning_rate=config.learning_rate, reg=config.reg, epochs=config.epochs,
        patience=config.patience, metric=config.metrics[0],
        value_type=config.value_type, init_std=config.init_std, random_state=config.random_state,
    )  # fmt: skip
    interactions = read(config.data / "train" if (config.data / "split.json").exists() else config.data)
    model.items_, model.users_, model.history_ = interactions.items, interactions.users, interactions.matrix
    model.popularity_ = np.bincount(interactions.matrix.indices, minlength=interactions.shape[1]).astype(np.float32)
    model.user_table_ = load_table(output / "user_table")
    model.item_table_ = load_table(output / "item_table")
    model.fold_in_map_ = model._align()
    model.validation_ = [epoch[model.metric] for epoch in validation]
    model.epochs_ = len(validation) or config.epochs
    model.best_epoch_ = summary.get("epoch", config.epochs)
    return model

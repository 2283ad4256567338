"""``--ranks N``: the same command on N processes of this machine, under torchrun."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from recsparse.distributed.config import TrainConfig
from recsparse.errors import ConfigError, DataError


def train_on_ranks(config: TrainConfig, ranks: int, *, restarts: int = 3) -> None:
    """Train on ``ranks`` processes here; a rank that dies costs the steps since the last checkpoint.

    Args:
        config: what to train.
        ranks: how many processes; they share the machine's cores, ``config.threads`` each.
        restarts: how often torchrun starts all of them again after one died.

    Raises:
        ConfigError: ``ranks`` is not positive.
        DataError: training failed on all attempts; what the ranks said went to standard error.
    """
    if ranks < 1:
        raise ConfigError(f"There must be at least 1 rank, not {ranks}.")
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.json"
        settings.write_text(json.dumps(config.model_dump(mode="json")))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
                   "--max-restarts", str(restarts), "-m", "recsparse.distributed", str(settings)]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": str(config.threads)}
        if subprocess.run(command, env=environment, check=False).returncode:  # noqa: S603 (our own interpreter)
            raise DataError(f"Training on {ranks} ranks failed; the ranks' messages are above.")

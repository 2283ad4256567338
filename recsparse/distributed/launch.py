"""``--ranks N``: the same command on N processes of this machine, under torchrun.

Run as a module it is torchrun's agent, which ends when the process that started it does; its ranks end with it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsparse.distributed.config import TrainConfig
from recsparse.distributed.require import require_torchrec
from recsparse.errors import ConfigError, DataError

_SAID = "Error: "


def train_on_ranks(
    config: TrainConfig, ranks: int, *, restarts: int = 3, say: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Train on ``ranks`` processes here; a rank that dies costs the steps since the last checkpoint.

    Args:
        config: what to train.
        ranks: how many processes; they share the machine's cores, ``config.threads`` each.
        restarts: how often torchrun starts all of them again after one died.
        say: told how far training has come, a line at a time.

    Returns:
        What ``training.json`` holds: samples a second, bytes sent a step, balance, metrics.

    Raises:
        ConfigError: ``ranks`` is not positive, or torchrec is not installed.
        DataError: training failed on all attempts; the message is the ranks' own.
    """
    if ranks < 1:
        raise ConfigError(f"There must be at least 1 rank, not {ranks}.")
    require_torchrec()
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.json"
        settings.write_text(json.dumps(config.model_dump(mode="json", exclude={"data", "output"})))
        command = [sys.executable, "-m", __name__, str(os.getpid()), "--standalone", "--nproc-per-node", str(ranks),
                   "--max-restarts", str(restarts), "-m", "recsparse", "train", str(config.data),
                   "--output", str(config.output), "--settings", str(settings)]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": str(config.threads)}
        said: list[str] = []
        with subprocess.Popen(  # noqa: S603 (our own interpreter)
            command, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            for line in process.stderr or ():
                said.append(line.strip())
                if say is not None and line.startswith("train "):
                    say(line.strip())
        if process.returncode:
            # torchrun's own account of a failure is a page; the ranks agree on one sentence.
            sentences = [line for line in said if line.startswith(_SAID)] or [line for line in said if line]
            why = sentences[-1].removeprefix(_SAID) if sentences else f"exit code {process.returncode}."
            raise DataError(f"Training on {ranks} ranks failed: {why}")
    summary: dict[str, Any] = json.loads((config.output / "training.json").read_text())
    return summary


def _agent(launcher: int, arguments: list[str]) -> None:
    from torch.distributed.run import main  # noqa: PLC0415 (torch takes seconds)

    from recsparse.distributed.process import end_with_parent  # noqa: PLC0415

    end_with_parent(signal.SIGTERM)
    if os.getppid() == launcher:  # else it was gone before we asked to be told
        main(arguments)


if __name__ == "__main__":
    _agent(int(sys.argv[1]), sys.argv[2:])

"""``torchrun --nproc-per-node N -m recsparse.distributed SETTINGS.json``: what each rank runs."""

import json
import os
import sys
from pathlib import Path

from recsparse.distributed.config import TrainConfig
from recsparse.errors import RecsparseError


def main(arguments: list[str]) -> int:
    """Train by a file of settings; only rank 0 prints what all ranks agree on."""
    from recsparse.distributed.run import train  # noqa: PLC0415 (takes seconds)

    try:
        if len(arguments) != 1:
            raise SystemExit("usage: torchrun --nproc-per-node N -m recsparse.distributed SETTINGS.json")
        train(TrainConfig.parse(json.loads(Path(arguments[0]).read_text()), arguments[0]))
    except RecsparseError as error:
        if os.environ.get("RANK", "0") == "0" or "waited" in str(error) or "lost another rank" in str(error):
            sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

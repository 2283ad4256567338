"""``torchrun --nproc-per-node N -m recsparse.distributed SETTINGS``: what each rank runs; settings are JSON or TOML."""

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

from recsparse.distributed.config import TrainConfig
from recsparse.errors import ConfigError, RecsparseError


def _read(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
        return tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as settings: {error}.") from error


def main(arguments: list[str]) -> int:
    """Train by a file of settings; only rank 0 prints what all ranks agree on."""
    from recsparse.distributed.run import train  # noqa: PLC0415 (takes seconds)

    try:
        if len(arguments) != 1:
            raise SystemExit("usage: torchrun --nproc-per-node N -m recsparse.distributed SETTINGS")
        train(TrainConfig.parse(_read(Path(arguments[0])), arguments[0]))
    except RecsparseError as error:
        if os.environ.get("RANK", "0") == "0" or "waited" in str(error) or "lost another rank" in str(error):
            sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Stages that are skipped when nothing they depend on has changed."""

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from recsparse.errors import DataError
from recsparse.files import atomic_file, sweep

STAMP = "_stamp.json"
"""Readers of a directory of Parquet, as recommendations are, pass over names that begin so."""


@cache
def code_digest() -> str:
    """Identify this version of recsparse: SHA-256 over its sources."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def digest_of(*parts: Any) -> str:
    """Identify settings and the digests of what came before, together with the code that uses them."""
    text = json.dumps([code_digest(), *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: what it does.
        directory: where its result is; ``_stamp.json`` there says what that was made from.
        digest: what it would be made from now.
    """

    name: str
    directory: Path
    digest: str

    def is_done(self) -> bool:
        """Whether the directory was finished from exactly this."""
        return self._stamp().get("digest") == self.digest

    @property
    def seconds(self) -> float:
        """What finishing it took; 0 where it is not finished."""
        return float(self._stamp().get("seconds", 0.0))

    def finish(self, seconds: float) -> None:
        """Say that it is finished; called last, so a killed stage is done again."""
        with atomic_file(self.directory / STAMP) as partial:
            partial.write_text(json.dumps({"digest": self.digest, "seconds": seconds}))

    @contextmanager
    def work(self) -> Iterator[None]:
        """Finish it after the block, unless that raises."""
        began = time.perf_counter()
        yield
        self.finish(time.perf_counter() - began)

    def _stamp(self) -> dict[str, Any]:
        try:
            stamp = json.loads((self.directory / STAMP).read_text())
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep other processes out of a run's directory and remove what a killed one left; the hold ends with the process.

    Raises:
        DataError: another process is at work there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"Another process is running in {directory}; wait for it, or choose another directory (--output)."
            ) from error
        sweep(directory)
        yield

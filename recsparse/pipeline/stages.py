"""Stages that are skipped when nothing they depend on has changed."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from recsparse.files import atomic_file

_STAMP = "stamp.json"


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


def is_done(directory: Path, digest: str) -> bool:
    """Whether ``directory`` was finished from exactly this."""
    try:
        return bool(json.loads((directory / _STAMP).read_text())["digest"] == digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def mark_done(directory: Path, digest: str) -> None:
    """Say that ``directory`` is finished; written last, so a killed stage is done again."""
    with atomic_file(directory / _STAMP) as partial:
        partial.write_text(json.dumps({"digest": digest}))

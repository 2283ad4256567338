"""One process at a time for a directory that is being made or replaced."""

import fcntl
import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process works on ``path``, and remove what killed ones have left beside it.

    The lock is a file beside ``path``; the system lets go of it however its process ends. Without it, two appends at
    the same time would lose one day, and nobody could tell a dead process's leftovers from a live one's work.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
    descriptor = _acquire(lock)
    try:
        for leftover in glob.glob(f".{glob.escape(path.name)}.partial-*", root_dir=path.parent):
            shutil.rmtree(path.parent / leftover, ignore_errors=True)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(lock: Path) -> int:
    """Lock the file; anew if whoever held it has removed it meanwhile."""
    while True:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if os.fstat(descriptor).st_ino == lock.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)

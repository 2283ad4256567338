"""Files and directories that appear whole or not at all."""

import ctypes
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recsparse.errors import DataError


def _aside(path: Path, role: str) -> Path:
    """Give a hidden sibling of ``path``, on the same file system so that a rename is atomic."""
    return path.with_name(f".{path.name}.{role}-{os.getpid()}-{secrets.token_hex(4)}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two paths in one step, as Linux does on most local file systems; False where it cannot be done."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <fcntl.h>
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _put_in_place(partial: Path, path: Path) -> Path | None:
    """Make ``partial`` become ``path``; give the place where what was there now is."""
    if not path.exists():
        partial.rename(path)
        return None
    if _swap(partial, path):
        return partial
    old = _aside(path, "old")
    path.rename(old)
    try:
        partial.rename(path)
    except BaseException:
        old.rename(path)
        raise
    return old


def sweep(directory: Path) -> None:
    """Remove what killed processes were writing aside below ``directory``; only for who writes there alone."""
    for leftover in list(Path(directory).rglob(".*.partial-*-*")):
        _remove(leftover)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write; on success it replaces ``path``, on any error it is removed.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with atomic_file(target) as partial:
    ...     _ = partial.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _aside(path, "partial")
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary directory to fill; on success it becomes ``path``, on any error it is removed.

    An existing ``path`` is refused unless ``overwrite`` is set; then the old one stays in place until the new
    one is complete and takes its place in one step. (On a file system that cannot exchange two names, NFS for one, it
    takes two: a kill between them leaves the old one beside, under a name that begins with a dot.)

    Raises:
        DataError: ``path`` exists and ``overwrite`` is false.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists already; choose another directory or pass overwrite (--overwrite).")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _aside(path, "partial")
    partial.mkdir()
    try:
        yield partial
        for file in partial.rglob("*"):
            _sync(file)
        _sync(partial)
        old = _put_in_place(partial, path)
        _sync(path.parent)
        if old is not None:
            _remove(old)
    except BaseException:
        _remove(partial)
        raise

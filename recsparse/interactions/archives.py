"""Archives, extracted under their own directory and nowhere else."""

import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from recsparse.errors import FetchError

SUFFIXES = (".zip", ".whl", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(path: Path) -> bool:
    """Whether the name says that a file holds other files.

    >>> is_archive(Path("ml-100k.zip")), is_archive(Path("ratings.csv.gz"))
    (True, False)
    """
    return path.name.endswith(SUFFIXES)


def extract(archive: Path, directory: Path, members: tuple[str, ...] = ()) -> list[Path]:
    """Extract regular files of a zip, wheel or tar archive below ``directory``.

    Args:
        archive: the archive.
        directory: where the files go; it exists.
        members: names to extract, each to its last part; empty means everything, folders kept.

    Raises:
        FetchError: the archive is damaged, lacks a member, or has one that would land outside ``directory``.
    """
    written = []
    wanted = set(members)
    try:
        for name, content in _files(archive):
            if members and name not in wanted:
                continue
            target = directory / (PurePosixPath(name).name if members else _inside(name, archive))
            target.parent.mkdir(parents=True, exist_ok=True)
            with content as source, target.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            written.append(target)
            wanted.discard(name)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, FileExistsError) as error:
        raise FetchError(f"{archive} is not a sound archive: {error}.") from error
    if wanted:
        raise FetchError(f"{archive} has no member {min(wanted)!r}.")
    return written


def _inside(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise FetchError(f"{archive} has a member {name!r} that would land outside its directory; it is not extracted.")
    return path


def _files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Every regular file: links and devices are passed over."""
    if archive.name.endswith((".zip", ".whl")):
        with zipfile.ZipFile(archive) as zipped:
            for entry in zipped.infolist():
                if not entry.is_dir():
                    yield entry.filename, zipped.open(entry)
        return
    with tarfile.open(archive) as tarred:
        for member in tarred:
            content = tarred.extractfile(member) if member.isfile() else None
            if content is not None:
                yield member.name, content

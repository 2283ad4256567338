"""From anybody's files to a dataset directory, without ever holding the data in memory."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsparse.errors import DataError
from recsparse.files import atomic_directory
from recsparse.interactions.cards import list_cards, load_card
from recsparse.interactions.cleaning import Cleaning
from recsparse.interactions.download import Progress, silent
from recsparse.interactions.engine import DuckDB, Engine
from recsparse.interactions.fetch import fetch, locate
from recsparse.interactions.locking import alone
from recsparse.interactions.pipeline import Input, Run
from recsparse.interactions.source import Ratings, Source
from recsparse.interactions.store import read_info

MakeEngine = Callable[[Path], Engine]
"""Gives an engine that keeps its tables and spill files in a directory, which is removed afterwards."""


def build(
    source: Source | Path | str,
    directory: Path,
    *,
    root: Path | None = None,
    name: str | None = None,
    cleaning: Cleaning | None = None,
    engine: MakeEngine | None = None,
    memory_limit: str | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    cache: Path | None = None,
    from_path: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    r"""Build a dataset directory (DESIGN 4.1) from files of any size.

    Rows are given to users and items in the order in which they first appear. The directory appears whole or not at
    all, and equal input gives equal bytes.

    Args:
        source: a :class:`Source`; or a path, for files with columns ``user_id`` and ``item_id``; or a card's name.
        directory: what to make.
        root: where the source's relative paths start; None is the current directory.
        name: the dataset's name; None takes the card's or the directory's.
        cleaning: what to leave out and how to merge; None is what the card says, else ``Cleaning()``.
        engine: None is DuckDB with the next two arguments; Spark is ``recsparse.interactions.spark.spark_engine(...)``.
        memory_limit: DuckDB's memory limit, for example ``"2GB"``; the process itself needs some 0.3 GB more.
        threads: DuckDB's threads; None uses every core.
        overwrite: replace an existing directory, which stays in place until the new one is complete.
        cache: see :func:`recsparse.interactions.fetch`.
        from_path: where the user already has a card's files, see there.
        progress: told the stage, how much is done and the total where known.

    Returns:
        ``directory``.

    Raises:
        DataError: the files do not hold what they should; the message has the value and the line.
        FetchError: ``source`` is a card and its data cannot be had.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "mine.csv").write_text("user_id,item_id\nann,7\nbob,7\nann,9\n")
        >>> from recsparse.interactions import read
        >>> read(build(folder / "mine.csv", folder / "data")).matrix.toarray()
        array([[1., 1.],
               [1., 0.]], dtype=float32)
    """
    tell = progress or silent
    directory = Path(directory)
    if isinstance(source, str) and not Path(source).exists() and source.split(":")[0] in list_cards():
        root = fetch(source, cache=cache, from_path=from_path, progress=progress)
        name = name or source
        card = load_card(source)
        source, cleaning = locate(card, root), cleaning or card.cleaning
    if not isinstance(source, Source):
        source = Source(ratings=Ratings(path=str(source)))
    given = Input(source, Path(root or "."), cleaning or Cleaning())
    make = engine or (lambda work: DuckDB(work, memory_limit=memory_limit, threads=threads, progress=tell))
    with alone(directory.resolve()):
        _run(given, directory.resolve(), name or directory.name, make, overwrite=overwrite, tell=tell)
    return directory


def append(
    source: Source | Path | str,
    directory: Path,
    *,
    root: Path | None = None,
    engine: MakeEngine | None = None,
    memory_limit: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Add new files to a dataset directory, cleaned as it was built; the old one stays until the new one is complete.

    Known users and items keep their rows, new ones get the next. The result is, to the byte, what :func:`build` makes
    of the old files followed by the new ones. Sums of fractions may differ in the last bit.

    Features of the new source count before those the dataset has; its feature columns must be the same.

    Args:
        source: as for :func:`build`; it must have times if and only if the dataset has.
        directory: the dataset.
        root: see :func:`build`, as the others.
        engine: as there.
        memory_limit: as there.
        threads: as there.
        progress: as there.

    Raises:
        DataError: the new files do not hold what they should; or the dataset was cleaned by steps that would have to
            see what they left out (minimum counts, k-core, a transform of a sum or count): build it from all files.
    """
    directory = Path(directory).resolve()
    tell = progress or silent
    make = engine or (lambda work: DuckDB(work, memory_limit=memory_limit, threads=threads, progress=tell))
    if not isinstance(source, Source):
        source = Source(ratings=Ratings(path=str(source)))
    with alone(directory):
        info = read_info(directory)
        given = Input(source, Path(root or "."), _cleaning_of(directory, info), old=directory)
        if (source.ratings.time is not None) != info["times"]:
            have, lack = ("has", "have none") if info["times"] else ("has no", "have some")
            raise DataError(f"{directory} {have} times and the new files {lack}; name or leave out their time column.")
        _run(given, directory, info["name"], make, overwrite=True, tell=tell)
    return directory


def _cleaning_of(directory: Path, info: dict[str, Any]) -> Cleaning:
    """Give the steps a dataset was cleaned by, if more lines can be taken through them."""
    cleaning = Cleaning.model_validate(info.get("cleaning", {}))
    if "cleaning" not in info or cleaning.needs_everything:
        why = "was not made by build" if "cleaning" not in info else f"left out what was rare ({cleaning!r})"
        raise DataError(f"{directory} {why}, so nothing can be appended to it; build it again from all files.")
    return cleaning


def _run(given: Input, directory: Path, name: str, make: MakeEngine, *, overwrite: bool, tell: Progress) -> None:
    with atomic_directory(directory, overwrite=overwrite) as partial:
        work = partial / ".work"
        work.mkdir()
        engine = make(work)
        try:
            Run(engine, given, work, tell).fill(partial, name)
        finally:
            engine.close()
        shutil.rmtree(work)

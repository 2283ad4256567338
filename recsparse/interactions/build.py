"""From anybody's files to a dataset directory, without ever holding the data in memory."""
# ruff: noqa: S608 (SQL is put together from our own names and from what the user's own source says)

import hashlib
import shutil
from collections.abc import Callable
from functools import partial as bind
from pathlib import Path
from typing import Any

from recsparse.errors import DataError
from recsparse.files import atomic_directory
from recsparse.interactions.cards import list_cards, load_card
from recsparse.interactions.cleaning import TRANSFORMS, Cleaning, drop_rare, filter_lines, merge_duplicates
from recsparse.interactions.download import Progress, digest, silent
from recsparse.interactions.engine import DuckDB, Engine
from recsparse.interactions.features import join_features
from recsparse.interactions.fetch import fetch, locate
from recsparse.interactions.ids import id_type, number_ids
from recsparse.interactions.layout import find_layout
from recsparse.interactions.lines import read_lines, time_unit
from recsparse.interactions.source import Ratings, Source
from recsparse.interactions.store import PART_ENTRIES, part_name, write_info, write_sorted, write_stream

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
        cleaning: what to leave out and how to merge; None is ``Cleaning()``.
        engine: None is DuckDB with the next two arguments; Spark is ``recsparse.interactions.spark.spark_engine(...)``.
        memory_limit: DuckDB's memory limit, for example ``"2GB"``; the process itself needs some 0.3 GB more.
        threads: DuckDB's threads; None uses every core.
        overwrite: replace an existing directory, which stays in place until the new one is complete.
        cache: see :func:`recsparse.interactions.fetch`.
        progress: told the stage, how much is done and the total where known.

    Returns:
        ``directory``.

    Raises:
        DataError: the files do not hold what they should; the message has the value and the line.
        FetchError: ``source`` is a card and its data cannot be had.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "mine.csv").write_text("user_id,item_id\\nann,7\\nbob,7\\nann,9\\n")
        >>> from recsparse.interactions import read
        >>> read(build(folder / "mine.csv", folder / "data")).matrix.toarray()
        array([[1., 1.],
               [1., 0.]], dtype=float32)
    """
    tell = progress or silent
    directory = Path(directory)
    if isinstance(source, str) and not Path(source).exists() and source.split(":")[0] in list_cards():
        root = fetch(source, cache=cache, progress=progress)
        name = name or source
        source = locate(load_card(source), root)
    if not isinstance(source, Source):
        source = Source(ratings=Ratings(path=str(source)))
    with atomic_directory(directory, overwrite=overwrite) as partial:
        work = partial / ".work"
        work.mkdir()
        made = engine(work) if engine else DuckDB(work, memory_limit=memory_limit, threads=threads, progress=tell)
        try:
            run = _Run(
                engine=made,
                source=source,
                root=Path(root or "."),
                work=work,
                cleaning=cleaning or Cleaning(),
                tell=tell,
            )
            run.fill(partial, name or directory.name)
        finally:
            made.close()
        shutil.rmtree(work)
    return directory


class _Run:
    """One build: what its steps share."""

    def __init__(
        self, *, engine: Engine, source: Source, root: Path, work: Path, cleaning: Cleaning, tell: Progress
    ) -> None:
        self.engine, self.source, self.root, self.work = engine, source, root, work
        self.cleaning, self.tell = cleaning, tell
        self.timed = source.ratings.time is not None
        self.funnel: list[dict[str, Any]] = []
        self.files: list[Path] = []

    def fill(self, directory: Path, name: str) -> None:
        """Write the dataset's files into ``directory``."""
        self.encode()
        self.clean()
        self.write(directory, name)

    def encode(self) -> None:
        """Read and check the lines, then replace ids by codes."""
        spec, engine = self.source.ratings, self.engine
        self.tell("read", 0, None)
        layout = find_layout(spec, self.root, self.work / "ratings", spec.user, spec.item, spec.value, spec.time)
        self.files += layout.files
        self.unit = time_unit(spec, layout)
        lines = read_lines(engine, spec, layout)
        self.tell("read", lines, lines)
        condition, steps = filter_lines(engine, self.cleaning, self.timed)
        self.funnel += [{"step": "read", "lines_before": lines, "lines_after": lines}, *steps]
        if steps and not steps[-1]["lines_after"]:
            raise DataError(f"No line is left after {steps[-1]['step']} (of {steps[-1]['lines_before']} before it).")
        self.tell("number", 0, None)
        number_ids(engine, spec, condition, {})
        self.kinds = {table: id_type(engine, spec, table) for table in ("users", "items")}
        value = "CAST(1 AS FLOAT) AS value" if self.cleaning.duplicates == "count" else "value"
        engine.create(
            "pairs",
            f"SELECT x.code AS u, y.code AS i, {value}{', t' if self.timed else ''}, line FROM lines "
            f"JOIN users x ON lines.user_id = x.raw JOIN items y ON lines.item_id = y.raw WHERE {condition}",
        )
        engine.drop("lines")

    def clean(self) -> None:
        """Merge repeated pairs, leave out what is rare, and close the gaps in the rows."""
        self.tell("clean", 0, None)
        (n_items,) = self.engine.rows("SELECT count(*) FROM items")[0]
        self.funnel.append(merge_duplicates(self.engine, self.cleaning, self.timed, n_items))
        dropped = drop_rare(self.engine, self.cleaning)
        self.funnel += dropped
        if dropped:
            for table, axis in (("users", "u"), ("items", "i")):
                self.engine.create(
                    table,
                    f"SELECT id, code AS old, CAST(row_number() OVER (ORDER BY code) - 1 AS INT) AS code FROM {table} "
                    f"WHERE code IN (SELECT {axis} FROM pairs)",
                )
            self.engine.create(
                "pairs",
                f"SELECT x.code AS u, y.code AS i, value{', t' if self.timed else ''} FROM pairs "
                "JOIN users x ON pairs.u = x.old JOIN items y ON pairs.i = y.old",
            )

    def write(self, directory: Path, name: str) -> None:
        """Write users, items and parts, each part sorted on its own."""
        coverage: dict[str, Any] = {}
        shape = []
        selects, consumers = [], []
        for table, spec in (("users", self.source.users), ("items", self.source.items)):
            select, covered, files = join_features(
                self.engine, spec, table, root=self.root, work=self.work, id_kind=self.kinds[table]
            )
            selects.append(select)
            consumers.append(bind(write_stream, file=directory / f"{table}.parquet"))
            coverage |= {table: covered} if covered else {}
            shape += [int(self.engine.rows(f"SELECT count(*) FROM {table}")[0][0])]
            self.files += files
        self.engine.consume(selects, consumers)
        (directory / "interactions").mkdir()
        value = TRANSFORMS.get(self.cleaning.transform or "", "value")
        columns = f"u, i, CAST({value} AS FLOAT) AS value{', t' if self.timed else ''}"
        ranges = self._ranges()
        parts = self.engine.consume(
            [f"SELECT {columns} FROM pairs WHERE u >= {a} AND u < {b} ORDER BY u, i" for a, b in ranges],
            [
                bind(write_sorted, file=directory / "interactions" / part_name(number), first=a, last=b)
                for number, (a, b) in enumerate(ranges)
            ],
        )
        about = {
            "cleaning": self.cleaning.model_dump(exclude_defaults=True),
            "ids": self.kinds,
            "time_unit": self.unit,
            "funnel": self.funnel,
            "features": coverage,
            "source": self._digest(),
        }
        write_info(directory, name, (shape[0], shape[1]), parts, times=self.timed, about=about)

    def _ranges(self) -> list[tuple[int, int]]:
        """Cut the users into parts of about :data:`PART_ENTRIES` interactions."""
        rows = self.engine.rows(
            "SELECT min(u), max(u) + 1 FROM (SELECT u, CAST(floor((sum(n) OVER (ORDER BY u) - n) / "
            f"{PART_ENTRIES}) AS BIGINT) AS part FROM (SELECT u, count(*) AS n FROM pairs GROUP BY u) counts) cuts "
            "GROUP BY part ORDER BY part"
        )
        return [(int(first), int(last)) for first, last in rows]

    def _digest(self) -> dict[str, Any]:
        files = [{"file": file.name, "sha256": digest(file)} for file in self.files]
        whole = hashlib.sha256("".join(each["sha256"] for each in files).encode()).hexdigest()
        return {"sha256": whole, "files": files}

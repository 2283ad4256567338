"""What runs the steps of a build: DuckDB here, Spark in :mod:`recsparse.interactions.spark`. The SQL is the same."""
# ruff: noqa: S608 (SQL is put together from our own names and from what the user's own source says)

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from recsparse.errors import DataError, FormatError, RecsparseError
from recsparse.interactions.download import Progress, silent
from recsparse.interactions.layout import Layout

Consumer = Callable[[Iterator[pa.RecordBatch]], Any]
"""Takes the rows of a query in order, and gives back something small. Spark sends it to its executors."""


class Engine(Protocol):
    """Runs SQL over files. Column names are lower case; tables live until :meth:`close`."""

    exact_lines: bool
    """Whether ``line`` counts 0, 1, ..., not only upwards."""

    def scan(self, view: str, layout: Layout) -> None:
        """Make the lines of files a view with columns ``c1``, ``c2``, ..."""

    def create(self, table: str, select: str) -> None:
        """Keep the result of a query, which may read the table it replaces."""

    def number(self, table: str, columns: Sequence[str], view: str, condition: str | None) -> None:
        """Keep columns of one scan, with a column ``line`` that follows the order of the files and their lines."""

    def drop(self, *tables: str) -> None:
        """Forget tables."""

    def rows(self, select: str) -> list[tuple[Any, ...]]:
        """Give a small result."""

    def consume(self, selects: Sequence[str], consumers: Sequence[Consumer]) -> list[Any]:
        """Give each query's rows, in its order, to its consumer; collect what they return."""

    def close(self) -> None:
        """Free everything."""


MACROS = """
CREATE MACRO struct(a, b) AS row(a, b);
CREATE MACRO unix_seconds(t) AS CAST(floor(epoch(t)) AS BIGINT);
CREATE MACRO regexp_like(text, pattern) AS regexp_matches(text, pattern);
CREATE MACRO split_text(text, separator) AS string_split(text, separator);
"""


class DuckDB:
    """DuckDB with a memory limit; what does not fit spills to ``work``.

    Args:
        work: a directory for the tables and the spill files, removed by its owner.
        memory_limit: for example ``"4GB"``; None leaves DuckDB's default, 80 % of the machine.
        threads: None uses every core.
        progress: told the percentage of long queries.
    """

    exact_lines = True

    def __init__(
        self, work: Path, *, memory_limit: str | None = None, threads: int | None = None, progress: Progress = silent
    ) -> None:
        config: dict[str, Any] = {"temp_directory": str(work / "spill"), "autoinstall_known_extensions": False}
        if memory_limit is not None:
            config["memory_limit"] = memory_limit
        if threads is not None:
            config["threads"] = threads
        self.progress = progress
        self._numbered: set[str] = set()
        self._expected: dict[str, int | None] = {}
        with _clear_errors():
            self.connection = duckdb.connect(str(work / "build.duckdb"), config=config)
            self.connection.execute(MACROS)

    def scan(self, view: str, layout: Layout) -> None:
        """Make the lines of files a view with columns ``c1``, ``c2``, ..."""
        files = ", ".join(quoted(str(file)) for file in layout.files)
        names = [f"c{position + 1}" for position in range(len(layout.names))]
        if layout.format == "parquet":
            select = f"SELECT * FROM read_parquet([{files}]) AS lines({', '.join(names)})"
        elif layout.format == "json":
            kinds = ["VARCHAR[]" if kind == "list" else "VARCHAR" for kind in layout.types]
            keys = ", ".join(f"{quoted(n)}: {quoted(k)}" for n, k in zip(layout.names, kinds, strict=True))
            select = (
                f"SELECT * FROM read_json([{files}], format='newline_delimited', columns={{{keys}}}) "
                f"AS lines({', '.join(names)})"
            )
        else:
            columns = ", ".join(f"{quoted(name)}: 'VARCHAR'" for name in names)
            select = (
                f"SELECT * FROM read_csv([{files}], auto_detect=false, columns={{{columns}}}, "
                f"delim={quoted(layout.delimiter)}, header={layout.header}, quote={quoted(layout.quote)}, "
                f"escape={quoted(layout.quote)}, encoding={quoted(layout.encoding)})"
            )
        self._run(f"CREATE VIEW {view} AS {select}")
        self._expected[view] = layout.about

    def create(self, table: str, select: str) -> None:
        """Keep the result of a query, which may read the table it replaces."""
        self._run("SET preserve_insertion_order = false")  # saves memory; line numbers are in a column by now
        self._run(f"CREATE OR REPLACE TABLE {table} AS {select}")

    def number(self, table: str, columns: Sequence[str], view: str, condition: str | None) -> None:
        """Keep columns of one scan; a table's row ids are its insertion order, which DuckDB keeps as the files'."""
        self._run("SET preserve_insertion_order = true")
        with self._watched(self._expected.get(view)):
            self._run(
                f"CREATE TABLE {table}_lines AS SELECT {', '.join(columns)} FROM {view} WHERE {condition or 'TRUE'}"
            )
        self._run(f"CREATE VIEW {table} AS SELECT *, rowid AS line FROM {table}_lines")
        self._numbered.add(table)

    def drop(self, *tables: str) -> None:
        """Forget tables."""
        for table in tables:
            if table in self._numbered:
                self._run(f"DROP VIEW {table}")
            self._run(f"DROP TABLE {table}_lines" if table in self._numbered else f"DROP TABLE {table}")

    def rows(self, select: str) -> list[tuple[Any, ...]]:
        """Give a small result."""
        with _clear_errors():
            return self.connection.execute(select).fetchall()  # type: ignore[no-any-return]

    def consume(self, selects: Sequence[str], consumers: Sequence[Consumer]) -> list[Any]:
        """Give each query's rows, in its order, to its consumer; collect what they return."""
        results = []
        self._run("SET preserve_insertion_order = true")  # without it even ORDER BY gives its batches out of order
        for done, (select, consumer) in enumerate(zip(selects, consumers, strict=True)):
            self.progress("write", done, len(selects))
            with _clear_errors():
                results.append(consumer(iter(self.connection.sql(select).to_arrow_reader(1 << 17))))
        return results

    def close(self) -> None:
        """Free everything."""
        self.connection.close()

    @contextmanager
    def _watched(self, expected: int | None) -> Iterator[None]:
        """Tell every half second how many of the expected lines have been read."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.5):
                percent = self.connection.query_progress()
                if expected is not None and percent >= 0:
                    self.progress("read", int(expected * percent / 100), expected)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def _run(self, statement: str) -> None:
        with _clear_errors():
            self.connection.execute(statement)


def quoted(text: str) -> str:
    """Write text as an SQL string.

    >>> quoted("it's")
    "'it''s'"
    """
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn DuckDB's errors into one sentence each."""
    try:
        yield
    except duckdb.Error as error:
        raise _explain(error) from error


def _explain(error: duckdb.Error) -> RecsparseError:
    text = str(error).strip()
    first = " ".join(text.splitlines()[0].split())
    lowered = text.lower()
    if "no space left" in lowered or "disk is full" in lowered or "max_temp_directory_size" in lowered:
        return DataError(f"The disk is full: {first}")
    if isinstance(error, duckdb.OutOfMemoryException):
        return DataError(f"The memory limit is too small: {first} Raise it (--memory) or use fewer threads.")
    if "csv error" in lowered:
        return _explain_line(text)
    if isinstance(error, (duckdb.InvalidInputException, duckdb.IOException, duckdb.SerializationException)):
        return FormatError(first)
    return DataError(first)


def _explain_line(text: str) -> DataError:
    """Say which line of a text file cannot be cut into its columns, and why."""
    file, number, line = (
        found.group(1).strip() if (found := re.search(pattern, text)) else "?"
        for pattern in (r"file = (.*)", r"CSV Error on Line: (\d+)", r"Original Line: ?(.*)")
    )
    cause = re.search(r"^(Expected Number.*|Value with.*|Maximum line.*|.*quote.*)$", text, re.MULTILINE)
    why = cause.group(1).rstrip(".") if cause else text.splitlines()[0]
    return DataError(
        f"{file}, line {number}: {why}; the line is {line!r}. Mend it, or name another delimiter or quote."
    )

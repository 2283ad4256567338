"""The same build on Spark: for data beyond one machine. The only file that imports PySpark.

Needs the extra ``spark`` and Java 17. The source files and the output directory must be at the same path on the driver
and on every executor (a shared file system, or all on one machine), and the executors need pyarrow and recsparse.
"""
# ruff: noqa: S608 (SQL is put together from our own names and from what the user's own source says)

import functools
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

import recsparse
from recsparse.errors import ConfigError, DataError, FormatError, RecsparseError
from recsparse.interactions.build import MakeEngine
from recsparse.interactions.engine import Consumer
from recsparse.interactions.layout import Layout
from recsparse.interactions.opening import plain

SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
    "spark.sql.parser.escapedStringLiterals": "true",  # a backslash in a pattern is a backslash, as in DuckDB
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(1 << 17),
    "spark.sql.adaptive.enabled": "true",
    "spark.executorEnv.PYTHONPATH": str(Path(recsparse.__file__).resolve().parents[1]),
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}

FUNCTIONS = (
    "split_text(value STRING, separator STRING) RETURNS ARRAY<STRING> "
    r"RETURN split(value, concat('\Q', separator, '\E'))",
)
CHARSETS = {"utf-8": "UTF-8", "latin-1": "ISO-8859-1"}
JOBS = 4
"""Parts that are written at the same time."""


def spark_engine(master: str = "local[*]", *, settings: dict[str, str] | None = None) -> MakeEngine:
    """Give what ``build(engine=...)`` takes to run its steps on Spark.

    Args:
        master: Spark's master: ``local[4]``, ``local-cluster[2,1,1024]``, ``yarn``, ``spark://host:port``, ...
        settings: further Spark settings.

    Raises:
        ConfigError: PySpark is not installed, when the engine is made.
    """
    return lambda work: Spark(work, master, settings or {})


class Spark:
    """Spark SQL behind the interface of :class:`recsparse.interactions.engine.Engine`."""

    exact_lines = False

    def __init__(self, work: Path, master: str, settings: dict[str, str]) -> None:
        try:
            from pyspark.sql import SparkSession  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError("The Spark engine needs PySpark: pip install 'recsparse[spark]'.") from error
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = SparkSession.builder.master(master).appName("recsparse build")
        for key, value in {**SETTINGS, "spark.local.dir": str(work.resolve() / "spill"), **settings}.items():
            builder = builder.config(key, value)
        self.work = work
        self.kept = 0
        self.shared = SparkSession.getActiveSession() is not None
        self.session = builder.getOrCreate()
        if not self.shared:
            self.session.sparkContext.setLogLevel("OFF")
        for function in FUNCTIONS:
            self.session.sql(f"CREATE OR REPLACE TEMPORARY FUNCTION {function}")

    def scan(self, view: str, layout: Layout) -> None:
        """Make the lines of files a view with columns ``c1``, ``c2``, ... and ``line``."""
        frames = [self._read(layout, file, place) for place, file in enumerate(layout.files)]
        with _clear_errors():
            functools.reduce(lambda one, other: one.unionAll(other), frames).createOrReplaceTempView(view)

    def _read(self, layout: Layout, file: Path, place: int) -> Any:
        """Read one file. Its partitions follow the bytes, so ``monotonically_increasing_id`` follows the lines."""
        names = [f"c{position + 1}" for position in range(len(layout.names))]
        path = plain(file, self.work).resolve().as_uri()
        reader = self.session.read
        if layout.format == "parquet":
            frame = reader.parquet(path)
        elif layout.format == "json":
            kinds = ["ARRAY<STRING>" if kind == "list" else "STRING" for kind in layout.types]
            schema = ", ".join(f"`{name}` {kind}" for name, kind in zip(layout.names, kinds, strict=True))
            frame = reader.schema(schema).option("mode", "FAILFAST").json(path)
        else:
            schema = ", ".join(f"{name} STRING" for name in names)
            frame = reader.schema(schema).csv(
                path, sep=layout.delimiter, header=layout.header, mode="FAILFAST", encoding=CHARSETS[layout.encoding],
                quote=layout.quote, escape=layout.quote or "\\",
            )  # fmt: skip
        line = f"(CAST({place} AS BIGINT) * {1 << 52}) + monotonically_increasing_id() AS line"
        return frame.toDF(*names).selectExpr("*", line)

    def create(self, table: str, select: str) -> None:
        """Keep the result of a query, which may read the table it replaces, in a file every executor sees."""
        self.kept += 1
        path = (self.work / f"{table}-{self.kept}.parquet").resolve().as_uri()
        with _clear_errors():
            self.session.sql(select).write.parquet(path)
            self.session.read.parquet(path).createOrReplaceTempView(table)

    def number(self, table: str, columns: Sequence[str], view: str, condition: str | None) -> None:
        """Keep columns of one scan, with a column ``line`` that follows the order of the files and their lines."""
        self.create(table, f"SELECT {', '.join(columns)}, line FROM {view} WHERE {condition or 'TRUE'}")

    def drop(self, *tables: str) -> None:
        """Forget tables."""
        for table in tables:
            self.session.catalog.dropTempView(table)

    def rows(self, select: str) -> list[tuple[Any, ...]]:
        """Give a small result."""
        with _clear_errors():
            return [tuple(row) for row in self.session.sql(select).collect()]

    def consume(self, selects: Sequence[str], consumers: Sequence[Consumer]) -> list[Any]:
        """Run each consumer on an executor over one sorted partition; the rows never pass through the driver."""
        with _clear_errors(), ThreadPoolExecutor(JOBS) as pool:
            return list(pool.map(self._consume, selects, consumers))

    def _consume(self, select: str, consumer: Consumer) -> Any:
        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            yield pa.RecordBatch.from_pydict({"result": [json.dumps(consumer(batches))]})

        frame = self.session.sql(select).coalesce(1).mapInArrow(run, "result STRING")
        return json.loads(frame.collect()[0]["result"])

    def close(self) -> None:
        """Stop Spark and its executors, unless the session was there before."""
        if not self.shared:
            self.session.stop()


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn what Spark raises, a page of Java, into one sentence."""
    try:
        yield
    except RecsparseError:
        raise
    except Exception as error:
        text = str(error)
        if "No space left on device" in text:
            raise DataError("The disk is full: Spark could not write its temporary files.") from error
        causes = re.findall(r"Caused by: [\w.$]+: (.+)", text)
        reason = " ".join((causes[-1] if causes else text.strip().splitlines()[0]).split())[:400]
        if "MALFORMED" in text:
            raise DataError(f"A line does not have the columns of the first one: {reason}") from error
        raise FormatError(f"Spark: {reason}") from error

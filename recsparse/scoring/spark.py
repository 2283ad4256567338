"""The same job on Spark: its parts are scored by executors. The only file of scoring that imports PySpark.

Needs the extra ``spark`` and Java 17. The model's files are broadcast; the output directory, and files of users,
histories or filters if there are any, must be at the same path on the driver and on every executor.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from recsparse.errors import ConfigError, RecsparseError
from recsparse.interactions.spark import SETTINGS
from recsparse.models.base import Recommender
from recsparse.scoring.job import Job, Summary, Work, open_job
from recsparse.scoring.memory import resident_bytes
from recsparse.scoring.output import Output

Files = dict[str, bytes]

_REPORT = "part int, lines long, bytes long, peak long"


def recommend_on_spark(
    model: Recommender | str | Path,
    directory: str | Path,
    job: Job | None = None,
    *,
    master: str = "local[*]",
    settings: dict[str, str] | None = None,
) -> Summary:
    """Do what :func:`recsparse.scoring.recommend_to_parquet` does, with the same bytes as a result.

    A part is a task's unit: it is written aside and renamed by the executor, so that a lost executor costs the part it
    was at, and a later call (here or on one machine) goes on where this one stopped.

    Args:
        model: fitted, or the directory it was saved to; executors get its files by broadcast.
        directory: where the parts go; seen by all.
        job: whom to score and how; its memory limit holds for each executor's Python process.
        master: Spark's master: ``local[4]``, ``local-cluster[2,1,1024]``, ``yarn``, ``spark://host:port``, ...
        settings: further Spark settings. A part uses all cores it sees: give a task an executor
            (``spark.task.cpus`` = ``spark.executor.cores``).

    Raises:
        ConfigError: PySpark is not installed, or a setting is impossible.
        RecsparseError: a task has failed as often as Spark allows; otherwise as ``recommend_to_parquet``.
    """
    try:
        from pyspark.errors import PySparkException  # noqa: PLC0415
        from pyspark.sql import SparkSession  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("The Spark engine needs PySpark: pip install 'recsparse[spark]'.") from error
    job, directory, began = job or Job(), Path(directory).absolute(), time.perf_counter()
    work, output = open_job(model, directory, job)
    parts = range(work.n_parts)
    users = {part: stop - start for part in parts for start, stop in [work.users_of(part)]}
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(master).appName("recsparse score")
    for key, value in {**SETTINGS, **(settings or {})}.items():
        builder = builder.config(key, value)
    with output.claim(parts):
        todo = [part for part in parts if not output.is_done(part)]
        shared = SparkSession.getActiveSession() is not None
        session = builder.getOrCreate()
        try:
            files = session.sparkContext.broadcast(_files(model))
            tasks = max(1, min(len(todo), 4 * session.sparkContext.defaultParallelism))
            numbers = session.range(0, len(todo), numPartitions=tasks)  # no shuffle: a lost executor loses no input
            score = partial(_score_parts, lambda: files.value, job, output, todo)
            rows = numbers.mapInArrow(score, _REPORT).collect()
        except PySparkException as error:
            reason = [line for line in str(error).splitlines() if "Error: " in line]
            raise RecsparseError(f"Scoring on Spark has failed: {(reason or [str(error)])[-1].strip()}") from error
        finally:
            if not shared:
                session.stop()
        complete = output.finish(work.n_parts)
    return Summary(
        users=sum(users.values()),
        scored=sum(users[row.part] for row in rows),
        parts=len(parts),
        lines=sum(row.lines for row in rows),
        bytes=sum(row.bytes for row in rows),
        seconds=time.perf_counter() - began,
        peak_bytes=max((row.peak for row in rows), default=0),
        complete=complete,
    )


def _files(model: Recommender | str | Path) -> Files:
    if isinstance(model, Recommender):
        with tempfile.TemporaryDirectory() as aside:
            model.save(Path(aside) / "model")
            return _files(Path(aside) / "model")
    root = Path(model)
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def _score_parts(
    files: Callable[[], Files], job: Job, output: Output, todo: list[int], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    work: Work | None = None
    for batch in batches:
        for part in (todo[number] for number in batch["id"].to_pylist()):
            work = work or Work.of(job, _load(files()))
            peak = [0]

            def tell(_users: int, peak: list[int] = peak) -> None:
                peak[0] = max(peak[0], resident_bytes())

            lines, size = output.write(part, work.tables(part, work.allowance(), tell))
            report: dict[str, Any] = {"part": [part], "lines": [lines], "bytes": [size], "peak": peak}
            yield pa.record_batch(report).cast(
                pa.schema({"part": pa.int32(), "lines": pa.int64(), "bytes": pa.int64(), "peak": pa.int64()})
            )


def _load(files: Files) -> Recommender:
    with tempfile.TemporaryDirectory() as aside:
        for name, content in files.items():
            file = Path(aside) / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return Recommender.load(aside)

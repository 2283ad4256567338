"""Build a dataset from a CSV: against a bare DuckDB script that does the same work, and under a memory limit.

    python benchmarks/build.py --work DIR            20 M lines, side by side
    python benchmarks/build.py --work DIR --large    100 M lines under 4 GiB for the whole process

Every run is a process of its own, so that its peak memory can be measured (``ru_maxrss``). The bare script reads typed
columns, numbers users and items by first appearance, keeps the last of repeated pairs, and writes sorted lists, users
and items as Parquet; it runs on an in-memory and on a file database, and the faster one counts. Adds to
``benchmarks/results/build.json``. DIR needs 10 GB free for the large one.
"""
# ruff: noqa: S608 (a script that puts its own names into SQL)

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import duckdb

from recsparse.interactions import Ratings, Source, build, synthesise

RESULT = Path(__file__).parent / "results" / "build.json"
SIZES = {"small": (140_000, 27_000, 20_000_000), "large": (750_000, 200_000, 103_000_000)}
THREADS = 2
REPETITIONS = 3


def ours(data: Path, out: Path, limit: str) -> None:
    ratings = Ratings(path="ratings.csv", value="rating", time="timestamp")
    build(Source(ratings=ratings), out / "d", root=data, memory_limit=limit, threads=THREADS)


def bare(data: Path, out: Path, limit: str, database: str) -> None:
    settings = {"memory_limit": limit, "threads": THREADS, "temp_directory": str(out / "spill")}
    run = duckdb.connect(database, config=settings).execute
    run(
        f"CREATE TABLE lines AS SELECT * FROM read_csv('{data}/ratings.csv', header = true, columns = "
        "{'user_id': 'BIGINT', 'item_id': 'BIGINT', 'rating': 'FLOAT', 't': 'BIGINT'})"
    )
    for table, column, code in (("users", "user_id", "u"), ("items", "item_id", "i")):
        run(
            f"CREATE TABLE {table} AS SELECT {column}, "
            f"CAST(row_number() OVER (ORDER BY min(rowid)) - 1 AS INT) AS {code} FROM lines GROUP BY {column}"
        )
        run(f"COPY (SELECT {column} FROM {table} ORDER BY {code}) TO '{out}/{table}.parquet' (COMPRESSION zstd)")
    run(
        "COPY (SELECT u AS user, list(i ORDER BY i) AS items, list(rating ORDER BY i) AS values, "
        "list(t ORDER BY i) AS times FROM (SELECT u, i, arg_max(rating, t) AS rating, max(t) AS t "
        "FROM lines JOIN users USING (user_id) JOIN items USING (item_id) GROUP BY u, i) GROUP BY u ORDER BY u) "
        f"TO '{out}/interactions.parquet' (COMPRESSION zstd)"
    )


def measured(how: str, data: Path, work: Path, limit: str) -> dict[str, float]:
    """Run one build in a process of its own."""
    out = work / f"out-{how}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    done = subprocess.run(
        [sys.executable, __file__, "--work", work, "--one", how, "--data", data, "--limit", limit],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    shutil.rmtree(out)
    return json.loads(done.stdout)


def one(how: str, data: Path, work: Path, limit: str) -> None:
    out = work / f"out-{how}"
    start = time.perf_counter()
    if how == "ours":
        ours(data, out, limit)
    else:
        bare(data, out, limit, ":memory:" if how == "bare, in memory" else str(out / "bare.duckdb"))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": round(seconds, 2), "peak_bytes": peak}))


def compare(work: Path) -> dict[str, object]:
    data, lines = make(work, "small")
    runs: dict[str, list[dict[str, float]]] = {how: [] for how in ("ours", "bare, in memory", "bare, on disk")}
    for _ in range(REPETITIONS):
        for how, mine in runs.items():
            mine.append(measured(how, data, work, "8GB"))
            print(f"{how:16} {mine[-1]['seconds']:7.1f} s {mine[-1]['peak_bytes'] / 2**30:6.2f} GiB", flush=True)
    median = {how: statistics.median(run["seconds"] for run in mine) for how, mine in runs.items()}
    ratio = median["ours"] / min(median["bare, in memory"], median["bare, on disk"])
    print(f"ours takes {ratio:.2f} x the faster bare script")
    return {"lines": lines, "median_seconds": median, "ratio": round(ratio, 3), "runs": runs}


def limited(work: Path) -> dict[str, object]:
    data, lines = make(work, "large")
    found = measured("ours", data, work, "2.5GB")
    peak = found["peak_bytes"] / 2**30
    print(f"{lines:,} lines in {found['seconds']:.0f} s, peak memory of the whole process {peak:.2f} GiB")
    return {"lines": lines, "duckdb_memory_limit": "2.5GB", "within_4_GiB": peak < 4, **found}


def make(work: Path, size: str) -> tuple[Path, int]:
    users, items, interactions = SIZES[size]
    data = work / f"synth-{interactions}"
    if not data.exists():
        synthesise(data, users=users, items=items, interactions=interactions, seed=1)
    return data, json.loads((data / "synth.json").read_text())["written"]


def machine() -> dict[str, object]:
    packages = {name: metadata.version(name) for name in ("duckdb", "pyarrow", "numpy")}
    return {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(), **packages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--make", choices=sorted(SIZES), help="only make the data")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--limit", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.data, given.work, given.limit)
        return
    given.work.mkdir(parents=True, exist_ok=True)
    if given.make:
        make(given.work, given.make)
        return
    command = f"python benchmarks/build.py --work DIR{' --large' if given.large else ''}"
    result = {"command": command, "threads": THREADS, **machine(), **(limited if given.large else compare)(given.work)}
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(known | {"large" if given.large else "small": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Packed tables: bytes, lookup latency beside torch, SciPy and FBGEMM, conversions, and a table larger than the caches.

    python benchmarks/tables.py            # writes benchmarks/results/tables.json

Each figure is the least, the median (p50) and the 99th percentile of many calls. All contenders of a line take turns of
ten calls, so that whatever else the machine does falls on each alike; the first two calls of a turn are not counted, as
torch's threads spin for a while after their work, on the core another contender's thread wants. With several threads
calls are made back to back, for which torch's threads are still spinning, and with a pause before each, after which
they have to be woken up.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

import recsparse
from recsparse.parallel import resolve_jobs
from recsparse.tables import (
    FactoredTable,
    Mask,
    PackedTable,
    Table,
    convert,
    load_table,
    pack,
    save_table,
    to_fbgemm,
    to_scipy,
)  # fmt: skip
from recsparse.tables.pack import assemble

ROWS, DIM, LOOKUPS = 70_000, 64, 4096
LARGE_ROWS = 10_000_000
BASIS_ROWS, PICKS = 256, 8
TURN = 10
PAUSE = 0.0005
DENSITIES = (0.2, 0.1, 0.05)
VALUE_TYPES = ("fp32", "fp16", "int8", "int4")
LAYOUTS = ("rows", "bitmap", "block", "ell", "csr", "combination")


def clock(calls: dict[str, Callable[[int], Any]], repeats: int, pause: float = 0) -> dict[str, dict[str, float]]:
    """Microseconds a call, p50 and p99, of contenders that take turns, with ``pause`` seconds before each call."""
    for call in calls.values():
        for number in range(5):
            call(number)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats // TURN):
        for name, call in calls.items():
            time.sleep(0.002)
            for number in range(turn * TURN, (turn + 1) * TURN):
                if pause:
                    time.sleep(pause)
                start = time.perf_counter()
                call(number)
                taken[name].append(time.perf_counter() - start)
            del taken[name][-TURN : 2 - TURN]
    return {
        name: {"min_us": round(min(times) * 1e6, 1), "p50_us": round(float(np.percentile(times, 50)) * 1e6, 1),
               "p99_us": round(float(np.percentile(times, 99)) * 1e6, 1)}
        for name, times in taken.items()
    }  # fmt: skip


def mask_for(layout: str, magnitude: np.ndarray, density: float, rng: np.random.Generator) -> Mask:
    """A mask of this density that suits the layout."""
    rows, dim = magnitude.shape
    if layout == "rows":
        return Mask.from_rows(rng.random(rows) < density, dim)
    if layout == "block":
        return Mask.from_tiles(rng.random((rows, dim // 4)) < density, (rows, dim), (1, 4))
    if layout == "ell":
        kept = np.zeros((rows, dim), dtype=bool)
        best = np.argpartition(-magnitude, round(density * dim), axis=1)[:, : round(density * dim)]
        np.put_along_axis(kept, best, True, axis=1)
        return Mask.from_dense(kept)
    return Mask.from_dense(magnitude > np.quantile(magnitude[:5000], 1 - density))


def lookups(
    rng: np.random.Generator, threads: int, repeats: int, value_types: tuple[str, ...], pause: float = 0
) -> list[dict[str, Any]]:
    """One line a density x layout x value type, and one of low-rank tables whose S is the int8 one, or far wider."""
    torch.set_num_threads(threads)
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(everything)[:threads])  # which our threads follow
    values = rng.standard_normal((ROWS, DIM)).astype(np.float32)
    magnitude, weight = np.abs(values), torch.from_numpy(values)
    ids = [rng.integers(0, ROWS, LOOKUPS) for _ in range(64)]
    torch_ids = [torch.from_numpy(each) for each in ids]
    short_ids = [torch.from_numpy(each.astype(np.int32)) for each in ids]
    offsets = torch.arange(LOOKUPS + 1, dtype=torch.int32)

    def measure(table: Table, density: float, layout: str, pruned: Any) -> dict[str, Any]:
        calls = {
            "recsparse": lambda n: table.lookup(ids[n % 64]),
            "one id": lambda n: table.lookup(ids[n % 64][:1]),
            "F.embedding": lambda n: torch.nn.functional.embedding(torch_ids[n % 64], weight),
            "FBGEMM pruned int8": lambda n: pruned(short_ids[n % 64], offsets),
        }
        if isinstance(table, PackedTable) and table.value_type == "fp32":
            matrix = to_scipy(table)
            calls["SciPy CSR"] = lambda n: matrix[ids[n % 64]].toarray()
        times = clock(calls, repeats, pause)
        ours, least = times["recsparse"]["p50_us"], times["recsparse"]["min_us"]
        line = {
            "threads": threads, "pause_ms": pause * 1e3, "density": density, "layout": layout,
            "value_type": table.value_type, "nbytes": table.nbytes,
            "dense_fp32_over_nbytes": round(values.nbytes / table.nbytes, 2), "times": times,
            "million_rows_per_s": round(LOOKUPS / ours, 1),
            "over_F_embedding": round(ours / times["F.embedding"]["p50_us"], 2),
            "over_FBGEMM": round(ours / times["FBGEMM pruned int8"]["p50_us"], 2),
            "least_over_F_embedding": round(least / times["F.embedding"]["min_us"], 2),
            "least_over_FBGEMM": round(least / times["FBGEMM pruned int8"]["min_us"], 2),
        }  # fmt: skip
        show(line)
        return line

    lines = []
    for density in DENSITIES:
        pruned = to_fbgemm(pack(values, mask_for("rows", magnitude, density, rng), layout="rows", value_type="int8"))
        for layout in LAYOUTS:
            mask = mask_for(layout, magnitude, density, rng)
            tables = (pack(values, mask, layout=layout, value_type=each) for each in value_types)
            lines.extend(measure(table, density, layout, pruned) for table in tables)
            basis = pack(rng.standard_normal((DIM, DIM)), layout="dense")
            product = FactoredTable(pack(values, mask, layout=layout, value_type="int8"), basis)
            lines.append(measure(product, density, f"low-rank {layout}", pruned))
    for layout, table in low_rank(rng):
        lines.append(measure(table, PICKS / BASIS_ROWS, f"low-rank {layout}", pruned))
    os.sched_setaffinity(0, everything)
    return lines


def low_rank(rng: np.random.Generator) -> Iterator[tuple[str, FactoredTable]]:
    """S of ``PICKS`` of ``BASIS_ROWS`` numbers a row, in each layout, and a dense basis."""
    columns = np.sort(rng.random((ROWS, BASIS_ROWS), dtype=np.float32).argpartition(PICKS, axis=1)[:, :PICKS], axis=1)
    numbers = rng.standard_normal(columns.size).astype(np.float32)
    picked = sp.csr_array((numbers, columns.reshape(-1), np.arange(ROWS + 1) * PICKS), shape=(ROWS, BASIS_ROWS))
    basis = pack(rng.standard_normal((BASIS_ROWS, DIM)), layout="dense")
    for layout in ("ell", "csr", "bitmap", "combination"):
        yield layout, FactoredTable(pack(picked, layout=layout), basis)


def show(line: dict[str, Any]) -> None:
    times = line["times"]
    print(
        f"{line['threads']} thread {line['density']:<8}{line['layout']:<21}{line['value_type']:<5}"
        f"{line['nbytes']:>11,} B {line['dense_fp32_over_nbytes']:>6} x  p50 {times['recsparse']['p50_us']:>7} us "
        f"p99 {times['recsparse']['p99_us']:>8}  one id {times['one id']['p50_us']:>5}  "
        f"{line['million_rows_per_s']:>5} M rows/s  F.embedding x {line['over_F_embedding']:<5} "
        f"FBGEMM x {line['over_FBGEMM']:<5} (least: x {line['least_over_F_embedding']}, "
        f"x {line['least_over_FBGEMM']})",
        flush=True,
    )


def conversions(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Seconds, rows/s and dense bytes/s of packing, unpacking and changing the layout at 10 % density."""
    values = rng.standard_normal((ROWS, DIM)).astype(np.float32)
    mask = mask_for("csr", np.abs(values), 0.1, rng)
    lines = []
    for value_type in ("fp32", "int4"):
        tables = {}
        for layout in ("bitmap", "csr", "combination"):
            packed = partial(pack, values, mask, layout=layout, value_type=value_type)
            tables[layout] = packed()
            lines.append(timed(f"dense -> {layout} {value_type}", packed))
            lines.append(timed(f"{layout} {value_type} -> dense", tables[layout].to_dense))
        for source, target in (("csr", "bitmap"), ("bitmap", "combination"), ("combination", "csr")):
            lines.append(timed(f"{source} -> {target} {value_type}", partial(convert, tables[source], layout=target)))
    return lines


def timed(what: str, work: Callable[[], Any], repeats: int = 5) -> dict[str, Any]:
    """The median of a few runs, after one that compiles."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    taken = float(np.median(seconds))
    line = {
        "what": what, "seconds": round(taken, 4), "million_rows_per_s": round(ROWS / taken / 1e6, 2),
        "dense_gb_per_s": round(ROWS * DIM * 4 / taken / 1e9, 2),
    }  # fmt: skip
    print(line, flush=True)
    return line


def large(rng: np.random.Generator, repeats: int, directory: str) -> dict[str, Any]:
    """10 M x 64 in int8, 10 % of the rows or of the entries: bytes moved a second against the copy bandwidth."""
    bandwidth = copy_bandwidth()
    result: dict[str, Any] = {"copy_gb_per_s_read_and_write": round(bandwidth, 1), "lines": []}
    ids = [rng.integers(0, LARGE_ROWS, 1 << 17) for _ in range(8)]
    for layout, table in large_tables(rng):
        path = Path(directory) / layout
        save_table(table, path)
        start = time.perf_counter()
        mapped = load_table(path)
        opened = time.perf_counter() - start
        times = clock({"lookup": lambda n, mapped=mapped: mapped.lookup(ids[n % 8])}, repeats)["lookup"]
        seconds = _seconds(lambda mapped=mapped: [block[0, 0] for _, block in mapped.blocks()])
        del mapped  # or the next opening would wait for these pages to be given back
        path.unlink()
        read = table.nbytes / LARGE_ROWS * len(ids[0])
        line = {
            "layout": layout, "value_type": table.value_type, "nbytes": table.nbytes, "open_ms": round(opened * 1e3, 2),
            "lookup_131072": times, "million_rows_per_s": round(len(ids[0]) / times["p50_us"], 1),
            "lookup_gb_per_s": round((read + len(ids[0]) * DIM * 4) / times["p50_us"] / 1e3, 2),
            "scan_gb_per_s": round((table.nbytes + LARGE_ROWS * DIM * 4) / seconds / 1e9, 2),
        }  # fmt: skip
        result["lines"].append(line)
        print(line, flush=True)
    return result


def copy_bandwidth() -> float:
    """GB/s read and written by one thread copying 256 MB."""
    source = np.ones(1 << 28, dtype=np.uint8)
    target = source.copy()
    return 2 * source.nbytes / min(_seconds(partial(np.copyto, target, source)) for _ in range(7)) / 1e9


def large_tables(rng: np.random.Generator) -> Iterator[tuple[str, PackedTable]]:
    """10 M x 64 at an eighth of the rows, or of the entries, in int8; never dense."""
    shape = (LARGE_ROWS, DIM)
    by_row = Mask.from_rows(rng.random(LARGE_ROWS) < 1 / 8, DIM)
    n_bytes = LARGE_ROWS * DIM // 8
    bits = np.zeros(n_bytes + 8, dtype=np.uint8)
    bits[:n_bytes] = np.bitwise_and.reduce([rng.integers(0, 256, n_bytes, dtype=np.uint8) for _ in range(3)])
    by_entry = Mask(shape, (1, 1), bits)
    for layout, mask in (("rows", by_row), ("bitmap", by_entry), ("csr", by_entry), ("combination", by_entry)):
        data = rng.standard_normal(mask.kept, dtype=np.float32)
        options = {"value_type": "int8", "scales": "row", "remap": layout == "rows", "fallback": "zero"}
        yield layout, assemble(mask, data, layout=layout, **options)


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure all, print, and write the JSON."""
    rng = np.random.default_rng(0)
    repeats = 600
    with TemporaryDirectory() as directory:
        ten_million = large(rng, 20, directory)
    result = {
        "command": "python benchmarks/tables.py",
        "machine": {"processor": processor(), "threads": resolve_jobs(None), "load_average": os.getloadavg()},
        "versions": {"python": platform.python_version(), "recsparse": recsparse.__version__,
                     **{name: version(name) for name in ("numpy", "numba", "scipy", "torch", "fbgemm_gpu-cpu")}},
        "table": {"rows": ROWS, "dim": DIM, "lookups": LOOKUPS},
        "lookups": [
            *lookups(rng, 1, repeats, VALUE_TYPES),
            *lookups(rng, resolve_jobs(None), repeats, ("int8",)),
            *lookups(rng, resolve_jobs(None), repeats, ("int8",), PAUSE),
        ],
        "conversions": conversions(rng),
        "large": ten_million,
    }  # fmt: skip
    target = Path(__file__).parent / "results" / "tables.json"
    target.write_text(json.dumps(result, indent=1) + "\n")


def processor() -> str:
    """The processor's name, where Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()

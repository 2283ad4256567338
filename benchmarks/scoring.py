"""Top-K scoring side by side with its peers: the same factors, the same K, seen items left out, two threads.

    python benchmarks/scoring.py speed packed latency million approximate

needs the extra ``benchmarks`` and RECSPARSE_DATA, a folder with ``ml-1m`` and ``gowalla``. Contenders take turns, round
after round, and the best round of each counts: what else runs on the machine then disturbs all of them alike. Figures
go to ``benchmarks/results/scoring-SECTION.json``.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
import scipy.sparse as sp
import torch
from implicit.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from recsparse.interactions import Interactions, write
from recsparse.kernels.products import TILE_ITEMS, TILE_USERS, top_products
from recsparse.models import IALS
from recsparse.scoring import Job, Scorer, recommend_to_parquet
from recsparse.scoring.approximate import ApproximateItems
from recsparse.tables import pack

THREADS, DIM = 2, 64
MOST = {"ml-1m": 6040, "gowalla": 4096}
"""Users that are scored, of those there are."""

Record = Callable[[str, dict[str, Any]], None]
RESULTS = Path(__file__).parent / "results"


def ml_1m(folder: Path) -> sp.csr_array:
    ratings = pq.read_table(folder / "ml-1m" / "ratings.parquet").to_pandas()
    return Interactions.from_frame(ratings).matrix


def gowalla(folder: Path) -> sp.csr_array:
    rows, columns = [], []
    for name in ("train.txt", "valid.txt"):
        for line in (folder / "gowalla" / name).read_text().splitlines():
            user, *items = map(int, line.split())
            rows += [user] * len(items)
            columns += items
    matrix = sp.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(29_858, 40_981))
    matrix.sum_duplicates()
    return matrix


DATA: dict[str, Callable[[Path], sp.csr_array]] = {"gowalla": gowalla, "ml-1m": ml_1m}


def best_of(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds, and seconds of processor time, of each contender's best round, after one that does not count."""
    seconds = dict.fromkeys(contenders, (float("inf"), float("inf")))
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            began, used = time.perf_counter(), time.process_time()
            run()
            if turn:
                now = time.perf_counter() - began, time.process_time() - used
                seconds[name] = min(seconds[name][0], now[0]), min(seconds[name][1], now[1])
    return seconds


def gemm_tiles(Q: torch.Tensor, V: torch.Tensor) -> None:
    """The bare product in our tiles, each thread its own users."""
    tiles = [V[first : first + TILE_ITEMS].T.contiguous() for first in range(0, len(V), TILE_ITEMS)]

    def work(part: torch.Tensor) -> None:
        torch.set_num_threads(1)
        buffer = torch.empty(TILE_USERS * TILE_ITEMS)
        for tile in tiles:
            for block in part.split(TILE_USERS):
                out = buffer[: len(block) * tile.shape[1]].view(len(block), tile.shape[1])
                torch.mm(block, tile, out=out)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, Q.chunk(THREADS)))
    torch.set_num_threads(THREADS)


def gemm_blocks(Q: torch.Tensor, V: torch.Tensor) -> None:
    """The bare product in blocks of 256 rows, each on all threads."""
    out = torch.empty(256, len(V))
    for block in Q.split(256):
        torch.mm(block, V.T, out=out[: len(block)])


def torch_loop(Q: torch.Tensor, V: torch.Tensor, seen: sp.csr_array, k: int) -> None:
    out = torch.empty(256, len(V))
    for start in range(0, len(Q), 256):
        scores = out[: min(256, len(Q) - start)]
        torch.mm(Q[start : start + 256], V.T, out=scores)
        lengths = np.diff(seen.indptr[start : start + len(scores) + 1])
        own = seen.indices[seen.indptr[start] : seen.indptr[start + len(scores)]]
        scores.numpy().ravel()[np.repeat(np.arange(len(scores)) * len(V), lengths) + own] = -np.inf
        torch.topk(scores, k)


def faiss_over_fetching(index: Any, Q: np.ndarray, seen: sp.csr_array, k: int) -> None:
    """Fetch K and as many as the block's longest history; users in order of theirs, which is the kindest way."""
    lengths = np.diff(seen.indptr)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), 1024):
        users = order[start : start + 1024]
        wide = min(k + int(lengths[users].max()), index.ntotal)
        _, found = index.search(Q[users], wide)
        own = seen[users]
        flat = np.repeat(np.arange(len(users)), np.diff(own.indptr)) * index.ntotal + own.indices
        keep = ~np.isin(found + np.arange(len(users))[:, None] * index.ntotal, flat, assume_unique=True)
        first = np.argsort(~keep, axis=1, kind="stable")[:, :k]
        np.take_along_axis(found, first, axis=1)


def recommend_implicit(model: Any, users: np.ndarray, seen: sp.csr_matrix, k: int) -> None:
    with threadpool_limits(1, "blas"):  # as implicit asks for: it has threads of its own
        model.recommend(users, seen, N=k, filter_already_liked_items=True)


def compare(seconds: dict[str, tuple[float, float]], Q: np.ndarray, V: np.ndarray) -> dict[str, Any]:
    """Users a second, and ratios to ours, by the clock and by processor time."""
    gemm = min(("gemm tiles", "gemm blocks"), key=lambda name: seconds[name][0])
    ours = seconds["recsparse"]
    return {
        "users/s": {name: round(len(Q) / each[0]) for name, each in seconds.items()},
        "GEMM GFLOP/s": round(2 * Q.size * len(V) / seconds[gemm][0] / 1e9),
        "share of the GEMM rate": round(seconds[gemm][0] / ours[0], 3),
        "the same by processor time": round(min(seconds[name][1] for name in seconds if "gemm" in name) / ours[1], 3),
        "times as fast": {name: round(seconds[name][0] / ours[0], 2) for name in ("torch", "implicit", "faiss")},
        "the same, processor time": {
            name: round(seconds[name][1] / ours[1], 2) for name in ("torch", "implicit", "faiss")
        },
    }


def contenders(Q: np.ndarray, V: np.ndarray, seen: sp.csr_array, k: int) -> dict[str, Callable[[], Any]]:
    index = faiss.IndexFlatIP(DIM)
    index.add(V)
    peer = AlternatingLeastSquares(factors=DIM, num_threads=THREADS)
    peer.user_factors, peer.item_factors = Q, V
    old, users = sp.csr_matrix(seen), np.arange(len(Q))
    Qt, Vt = torch.from_numpy(Q), torch.from_numpy(V)
    table = pack(V)
    return {
        "recsparse": lambda: top_products(Q, table.dense_rows, len(V), k, seen.indptr, seen.indices, n_jobs=THREADS),
        "gemm tiles": lambda: gemm_tiles(Qt, Vt),
        "gemm blocks": lambda: gemm_blocks(Qt, Vt),
        "torch": lambda: torch_loop(Qt, Vt, seen, k),
        "implicit": lambda: recommend_implicit(peer, users, old, k),
        "faiss": lambda: faiss_over_fetching(index, Q, seen, k),
        "faiss, seen kept": lambda: index.search(Q, k),
    }


def speed(folder: Path, record: Record) -> None:
    faiss.omp_set_num_threads(THREADS)
    for data, load in DATA.items():
        seen = load(folder)
        model = IALS(DIM, epochs=5).fit(Interactions.from_csr(seen))
        trained = np.asarray(model.fold_in(seen), dtype=np.float32), model.item_table_.to_dense()
        rng = np.random.default_rng(0)
        random = tuple(rng.standard_normal((n, DIM)).astype(np.float32) for n in seen.shape)
        for kind, (queries, V) in {"trained": trained, "random": random}.items():
            Q = queries[: MOST[data]]
            for k in (20, 100):
                seconds = best_of(contenders(Q, V, seen[: MOST[data]], k), 5 if data == "ml-1m" else 3)
                record(f"{data} {kind} top-{k}", compare(seconds, Q, V))
        with tempfile.TemporaryDirectory() as aside:
            model.save(Path(aside) / "model")
            summary = recommend_to_parquet(Path(aside) / "model", Path(aside) / "warm-up", Job(k=20))
            summary = recommend_to_parquet(model, Path(aside) / "out", Job(k=20))
            record(
                f"{data} to Parquet, folded in, top-20",
                {"users/s": round(summary.users / summary.seconds), "bytes": summary.bytes},
            )


def strongest(V: np.ndarray, kept: int) -> np.ndarray:
    """Mask of each row's ``kept`` greatest entries."""
    mask = np.zeros(V.shape, dtype=np.bool_)
    np.put_along_axis(mask, np.argsort(-np.abs(V), axis=1)[:, :kept], True, axis=1)
    return mask


def packed(_folder: Path, record: Record) -> None:
    """Batch and single-user time of packed tables against the dense fp32 one, 40,981 items."""
    rng = np.random.default_rng(0)
    for dim in (64, 128):
        V = rng.standard_normal((40_981, dim)).astype(np.float32)
        Q = rng.standard_normal((4096, dim)).astype(np.float32)
        tables = {"dense fp32": pack(V)}
        tables |= {f"dense {value_type}": pack(V, value_type=value_type) for value_type in ("int8", "int4")}
        for kept in (16, 8):
            mask = strongest(V, kept)
            tables |= {f"{kept} a row, {kind}": pack(V, mask, value_type=kind) for kind in ("fp16", "int8")}
        for case, queries, rounds in (("batch", Q, 2), ("one user", Q[:1], 20)):
            nothing = np.zeros(len(queries) + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
            runs = {
                name: lambda table=table, queries=queries, nothing=nothing: top_products(
                    queries, table.dense_rows, len(table), 20, *nothing, n_jobs=THREADS
                )
                for name, table in tables.items()
            }
            seconds = best_of(runs, rounds)
            for name, (wall, used) in seconds.items():
                record(
                    f"dim {dim}, {case}, {name}",
                    {
                        "bytes of dense fp32": round(tables[name].nbytes / V.nbytes, 4),
                        "time of dense fp32": round(wall / seconds["dense fp32"][0], 3),
                        "the same, processor time": round(used / max(seconds["dense fp32"][1], 1e-9), 3),
                        "ms": round(wall * 1e3, 2),
                    },
                )


def latency(folder: Path, record: Record) -> None:
    """One user at a time, from a history to a table of 20 items: fold-in, exact top-K, ids."""
    for data, load in DATA.items():
        interactions = Interactions.from_csr(load(folder))
        for value_type in ("fp32", "int8"):
            scorer = Scorer.of(IALS(DIM, epochs=2, value_type=value_type).fit(interactions))
            histories = [interactions.select_users([row]) for row in range(0, 1000, 2)]
            spent = []
            for history in histories:
                began = time.perf_counter()
                scorer.top_k(history, 20)
                spent.append(time.perf_counter() - began)
            p50, p99 = np.quantile(spent[20:], [0.5, 0.99]) * 1e3
            record(f"{data} {value_type}", {"p50 ms": round(p50, 3), "p99 ms": round(p99, 3)})


MILLION = """
import json, resource, sys
from dataclasses import asdict
from pathlib import Path
from recsparse.scoring import Job, Scorer, recommend_to_parquet
from recsparse.scoring.approximate import ApproximateItems
job = Job(histories=Path(sys.argv[2]), k=20, memory="2GiB")
summary = asdict(recommend_to_parquet(sys.argv[1], sys.argv[3], job))
summary["peak RSS MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
print(json.dumps(summary))
"""


def million(_folder: Path, record: Record) -> None:
    """1 M users x 50,000 items from a dataset directory to Parquet, in a process of its own with a limit of 2 GiB."""
    rng = np.random.default_rng(0)
    n_users, n_items, each = 1_000_000, 50_000, 20
    items = np.minimum(rng.pareto(0.7, n_users * each) * 40, n_items - 1).astype(np.int32)
    matrix = sp.csr_array(
        (np.ones(len(items), np.float32), items, np.arange(n_users + 1, dtype=np.int64) * each), (n_users, n_items)
    )
    matrix.sum_duplicates()
    interactions = Interactions.from_csr(matrix)
    with tempfile.TemporaryDirectory() as aside:
        root = Path(aside)
        sample = IALS(DIM, epochs=1).fit(interactions.select_users(np.arange(50_000)))
        sample.save(root / "model")
        write(interactions, root / "data")
        command = [sys.executable, "-c", MILLION, *(str(root / name) for name in ("model", "data", "out"))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    summary: dict[str, Any] = json.loads(done.stdout)
    summary["users/s"] = round(summary["scored"] / summary["seconds"])
    record("1,000,000 users x 50,000 items, limit 2 GiB", summary)


def approximate(folder: Path, record: Record) -> None:
    """Recall and rate of the graph index against exact, on trained Gowalla factors and on a million random rows."""
    seen = gowalla(folder)
    model = IALS(DIM, epochs=3).fit(Interactions.from_csr(seen))
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(0, 0.5, (1_000_000, 1)).astype(np.float32)
    cases = {
        "gowalla, trained": (model.item_table_, np.asarray(model.fold_in(seen[:1000]), dtype=np.float32)),
        "1,000,000 items, 16 dimensions, random": (
            pack(rng.standard_normal((1_000_000, 16), dtype=np.float32) * lengths),
            rng.standard_normal((1000, 16), dtype=np.float32),
        ),
    }
    for name, (table, Q) in cases.items():
        began = time.perf_counter()
        index = ApproximateItems.build(table, n_jobs=THREADS)
        built = time.perf_counter() - began
        nothing = np.zeros(len(Q) + 1, dtype=np.int64), np.zeros(0, dtype=np.int32)
        runs = {
            "exact": lambda table=table, Q=Q, nothing=nothing: top_products(
                Q, table.dense_rows, len(table), 20, *nothing, n_jobs=THREADS
            ),
            "approximate": lambda index=index, Q=Q: index.top_k(Q, 20, n_jobs=THREADS),
        }
        seconds = best_of(runs, 2)
        record(
            name,
            {
                "build seconds": round(built, 1),
                "recall@20": round(index.recall(Q, 20), 4),
                "users/s": {run: round(len(Q) / wall) for run, (wall, _) in seconds.items()},
            },
        )


SECTIONS: dict[str, Callable[[Path, Record], None]] = {
    "speed": speed, "packed": packed, "latency": latency, "million": million, "approximate": approximate,
}  # fmt: skip


def machine() -> dict[str, Any]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    packages = ("numpy", "torch", "numba", "pyarrow", "implicit", "faiss-cpu", "usearch")
    return {
        "processor": model, "cores": os.cpu_count(), "threads": THREADS, "load before": os.getloadavg()[0],
        "python": platform.python_version(), **{name: version(name) for name in packages},
    }  # fmt: skip


def main() -> None:
    folder = Path(os.environ.get("RECSPARSE_DATA", ""))
    torch.set_num_threads(THREADS)
    RESULTS.mkdir(exist_ok=True)
    for section in sys.argv[1:] or SECTIONS:
        figures: dict[str, Any] = {}
        document = {"command": f"python benchmarks/scoring.py {section}", "machine": machine(), "figures": figures}

        def record(
            name: str, figure: dict[str, Any], section: str = section, figures: dict[str, Any] = figures,
            document: dict[str, Any] = document,
        ) -> None:  # fmt: skip
            figures[name] = figure
            print(section, name, json.dumps(figure), flush=True)
            (RESULTS / f"scoring-{section}.json").write_text(json.dumps(document, indent=1) + "\n")

        SECTIONS[section](folder, record)


if __name__ == "__main__":
    main()

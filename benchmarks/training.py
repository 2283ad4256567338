"""Training side by side with its peers: the same data, dimension, negatives and threads.

    python benchmarks/training.py bpr quality start cheaper

needs the extra ``benchmarks`` and RECSPARSE_DATA, a folder with ``ml-1m`` and ``gowalla``. Contenders take turns, round
after round, and the best round of each counts: what else runs on the machine then disturbs all of them alike. Figures
go to ``benchmarks/results/training-SECTION.json``.

BPR: negatives follow popularity in all contenders. Ours draws again when a user has the item, so that all samples are
updates; implicit drops the sample, and torch and FBGEMM train on it (that spares them the test). ``samples/s`` counts
what a contender went through, ``updates/s`` leaves out the samples that implicit drops, by their exact expectation.

quality: NDCG@20 on ML-1M's published test after equally many epochs of BPR, dim 64, three seeds; the rate and the decay
are each contender's best on validation.

start: seconds of a new process, kernels compiled before, to import recsparse and from ``fit`` to the end of the first
epoch on 500 x 300 (a training itself of milliseconds): the least of five.

cheaper: MF on ML-1M, one thread, both tables under a dynamic recipe of falling density. *held* is what the two tables
take while an epoch trains: weights, optimiser state and where they stand. *training peak* is the most that is allocated
at any moment from the first table to the last packed one: what is held, masks, the copy that divergence goes back to,
all that an exchange of entries looks at, and packing; all but what belongs to interactions: X, the sampler's lists, and
in an epoch the order of its samples. Both are over what the dense training *holds*. *fit peak* is the most that all of
fit allocates, X left out, but with the order of samples, and with fitting the fold-in to the packed tables. *step
seconds* are an epoch's steps', *exchange seconds* those of what a dynamic recipe does between two epochs: seconds of
the processor, medians of five rounds in which densities take turns; over dense is the median of the rounds' ratios.
"""

import json
import os
import platform
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import scipy.sparse as sp
import torch
from ials import ndcg, parts
from implicit.bpr import BayesianPersonalizedRanking
from threadpoolctl import threadpool_limits

from recsparse.interactions import Interactions
from recsparse.kernels.sgd import Settings
from recsparse.models import MF, mf
from recsparse.models.pruners import ITEMS, USERS, Pruners, Sides
from recsparse.models.sgd_state import OPTIMISERS, Sampler, run_epoch
from recsparse.models.side import Drawn
from recsparse.sparsity import Pruner, Recipe

THREADS, ROUNDS = 2, 5
RATE, REG = 0.05, 0.01
TORCH_BATCH, TORCH_BATCHES = 8192, 20
QUALITY_EPOCHS = 60
RESULTS = Path(__file__).parent / "results"

Factors = npt.NDArray[np.float32]
Contender = Callable[[], tuple[int, float]]
"""Trains for a while and gives how many samples it went through and in how many seconds."""


def ml_1m(folder: Path) -> sp.csr_array:
    return Interactions.from_frame(pq.read_table(folder / "ml-1m" / "ratings.parquet").to_pandas()).matrix


def gowalla(folder: Path) -> sp.csr_array:
    rows, columns = [], []
    for name in ("train.txt", "valid.txt"):
        for line in (folder / "gowalla" / name).read_text().splitlines():
            user, *items = map(int, line.split())
            rows += [user] * len(items)
            columns += items
    return Interactions.from_csr(sp.coo_array((np.ones(len(rows), np.float32), (rows, columns)))).matrix


def ours(matrix: sp.csr_array, dim: int) -> Contender:
    rng = np.random.default_rng(0)
    sampler = Sampler.of(matrix, "popularity", 0)
    users, items = (Drawn((n, dim), 0.1 / np.sqrt(dim), rng).side(0) for n in matrix.shape)
    settings = Settings(0, 0, np.float32(RATE), np.float32(REG), 1, np.float32(1))
    epochs = iter(range(10_000))

    def train() -> tuple[int, float]:
        start = time.perf_counter()
        samples = run_epoch(sampler, next(epochs), users, items, settings, THREADS)
        return samples, time.perf_counter() - start

    train()
    return train


def implicit_bpr(matrix: sp.csr_array, dim: int) -> Contender:
    pattern = sp.csr_matrix(matrix)

    def train() -> tuple[int, float]:
        model = BayesianPersonalizedRanking(
            factors=dim, iterations=2, learning_rate=RATE, regularization=REG, num_threads=THREADS, random_state=0
        )
        ends: list[float] = []
        model.fit(pattern, show_progress=False, callback=lambda *_: ends.append(time.perf_counter()))
        return matrix.nnz, ends[1] - ends[0]

    return train


def torch_sparse(matrix: sp.csr_array, dim: int) -> Contender:
    torch.manual_seed(0)
    users, items = (torch.nn.Embedding(n, dim, sparse=True) for n in matrix.shape)
    optimiser = torch.optim.SGD([users.weight, items.weight], lr=RATE)
    pairs = _pairs(matrix)

    def train() -> tuple[int, float]:
        start = time.perf_counter()
        for user, item, other in _batches(pairs):
            vector = users(user)
            gap = (vector * (items(item) - items(other))).sum(dim=1)
            optimiser.zero_grad()
            (-torch.nn.functional.logsigmoid(gap)).sum().backward()
            optimiser.step()
        return TORCH_BATCH * TORCH_BATCHES, time.perf_counter() - start

    return train


def fbgemm_fused(matrix: sp.csr_array, dim: int) -> Contender:
    """The fused CPU kernel under torchrec's sharded tables, without torchrec's own cost around it."""
    from fbgemm_gpu.split_embedding_configs import EmbOptimType  # noqa: PLC0415 (Linux only)
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import (  # noqa: PLC0415
        EmbeddingLocation,
        PoolingMode,
    )
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (  # noqa: PLC0415
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    tables = [
        SplitTableBatchedEmbeddingBagsCodegen(
            [(n, dim, EmbeddingLocation.HOST, ComputeDevice.CPU)],
            optimizer=EmbOptimType.EXACT_SGD, learning_rate=RATE, pooling_mode=PoolingMode.NONE,
        )
        for n in matrix.shape
    ]  # fmt: skip
    pairs = _pairs(matrix)
    offsets = torch.arange(2 * TORCH_BATCH + 1)

    def train() -> tuple[int, float]:
        start = time.perf_counter()
        for user, item, other in _batches(pairs):
            vector = tables[0](user, offsets[: len(user) + 1])
            both = tables[1](torch.cat([item, other]), offsets)
            gap = (vector * (both[: len(item)] - both[len(item) :])).sum(dim=1)
            (-torch.nn.functional.logsigmoid(gap)).sum().backward()
        return TORCH_BATCH * TORCH_BATCHES, time.perf_counter() - start

    return train


def _pairs(matrix: sp.csr_array) -> tuple[torch.Tensor, torch.Tensor]:
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return torch.from_numpy(rows), torch.from_numpy(matrix.indices.astype(np.int64))


def _batches(pairs: tuple[torch.Tensor, torch.Tensor]) -> Any:
    for _ in range(TORCH_BATCHES):
        at, other = torch.randint(len(pairs[0]), (2, TORCH_BATCH))
        yield pairs[0][at], pairs[1][at], pairs[1][other]


def dropped_share(matrix: sp.csr_array) -> float:
    """The share of popularity negatives that the sample's user has: what implicit drops."""
    shares = np.bincount(matrix.indices, minlength=matrix.shape[1]) / matrix.nnz
    pattern = sp.csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
    return float((pattern @ shares) @ np.diff(matrix.indptr) / matrix.nnz)


CONTENDERS = {
    "recsparse": ours,
    "implicit": implicit_bpr,
    "torch sparse SGD": torch_sparse,
    "FBGEMM fused": fbgemm_fused,
}


def bpr(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for name, load in (("ml-1m", ml_1m), ("gowalla", gowalla)):
        matrix = load(folder)
        dropped = dropped_share(matrix)
        for dim in (64, 128):
            running = {label: make(matrix, dim) for label, make in CONTENDERS.items()}
            rates: dict[str, list[float]] = {label: [] for label in running}
            for _ in range(ROUNDS):
                for label, train in running.items():
                    samples, seconds = train()
                    rates[label].append(samples / seconds / 1e6)
            best = {label: max(values) for label, values in rates.items()}
            updates = best | {"implicit": best["implicit"] * (1 - dropped)}
            results[f"{name} dim {dim}"] = {
                "million samples/s": best,
                "million updates/s": updates,
                "ours over theirs, samples/s": {key: best["recsparse"] / value for key, value in best.items()},
                "ours over theirs, updates/s": {key: updates["recsparse"] / value for key, value in updates.items()},
                "all rounds": rates,
            }
            print(
                f"{name} dim {dim}: " + ", ".join(f"{key} {value:.2f} M/s" for key, value in best.items()), flush=True
            )
        results[f"{name} dropped by implicit"] = dropped
    return results


def quality(folder: Path) -> dict[str, Any]:
    def ours_of(matrix: sp.csr_array, rate: float, reg: float, seed: int) -> tuple[Factors, Factors]:
        model = MF(dim=64, negatives="popularity", learning_rate=rate, reg=reg, epochs=QUALITY_EPOCHS,
                   random_state=seed, n_jobs=THREADS).fit(matrix)  # fmt: skip
        return model.user_table_.to_dense(), model.item_table_.to_dense()

    def theirs_of(matrix: sp.csr_array, rate: float, reg: float, seed: int) -> tuple[Factors, Factors]:
        model = BayesianPersonalizedRanking(
            factors=64, iterations=QUALITY_EPOCHS, learning_rate=rate, regularization=reg, num_threads=THREADS,
            random_state=seed,
        )  # fmt: skip
        model.fit(sp.csr_matrix(matrix), show_progress=False)
        return model.user_factors, model.item_factors

    found = parts()
    train, validation, both, test = (found[name] for name in ("train", "validation", "both", "test"))
    settings = [(rate, reg) for rate in (0.02, 0.05, 0.1) for reg in (0.003, 0.01, 0.03)]
    results: dict[str, Any] = {}
    for label, fit in (("recsparse", ours_of), ("implicit", theirs_of)):
        tuned = {each: ndcg(*fit(train, *each, 0), train, validation) for each in settings}
        best = max(tuned, key=tuned.__getitem__)
        reached = [ndcg(*fit(both, *best, seed), both, test) for seed in range(3)]
        results[label] = {
            "rate": best[0], "reg": best[1], "test ndcg@20": reached,
            "validation ndcg@20": {f"{rate}, {reg}": value for (rate, reg), value in tuned.items()},
        }  # fmt: skip
        print(f"{label}: {best}, NDCG@20 {reached}", flush=True)
    return results


STARTED = """
import time
began = time.perf_counter()
import scipy.sparse as sp
from recsparse.models import IALS, MF
imported = time.perf_counter()
data = sp.random_array((500, 300), density=0.05, random_state=0, dtype="float32", format="csr")
ends = []
{model}.fit(data, on_epoch=lambda *_: ends.append(time.perf_counter()))
print(imported - began, ends[0] - imported)
"""


def start(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = {}
    recipe = {"density": 0.1, "schedule": "dynamic"}
    for model in ("MF(dim=64, epochs=1)", "IALS(dim=64, epochs=1)", f"IALS(dim=64, epochs=1, recipe={recipe})"):
        command = [sys.executable, "-c", STARTED.format(model=model)]
        runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(6)]
        imports, epochs = (min(float(run[at]) for run in runs[1:]) for at in (0, 1))
        results[model] = {"import seconds": imports, "fit to first epoch, seconds": epochs}
        print(f"{model}: import {imports:.2f} s, first epoch {epochs:.2f} s later", flush=True)
    return results


def cheaper(folder: Path) -> dict[str, Any]:
    matrix = ml_1m(folder)
    results: dict[str, Any] = {}
    for optimiser, densities in (("adagrad", (1.0, 0.5, 0.25, 0.1, 0.05, 0.02)), ("adam", (1.0, 0.5, 0.1))):
        for dim in (128, 512):
            rows = {density: _memory(matrix, dim, density, optimiser) for density in densities}
            times = _in_turns({density: _epoch(matrix, dim, density, optimiser) for density in densities})
            dense, whole = rows[1.0]["held bytes"], times[1.0][:, 0]
            for density, row in rows.items():
                steps, exchange = np.median(times[density], axis=0)
                row |= {
                    "held over dense": row["held bytes"] / dense,
                    "training peak over dense held": row["training peak bytes"] / dense,
                    "step seconds": steps, "exchange seconds": exchange,
                    "step seconds over dense": np.median(times[density][:, 0] / whole),
                }  # fmt: skip
                print(f"{optimiser}, {dim} columns, density {density}: "
                      + ", ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)  # fmt: skip
            results[f"{optimiser}, {dim} columns"] = {f"{density:g}": row for density, row in rows.items()}
    return results


def _memory(matrix: sp.csr_array, dim: int, density: float, optimiser: str) -> dict[str, float]:
    """Bytes of a training of three epochs; after the first, three in ten of what lives are exchanged."""
    recipe = None if density == 1 else {"density": density, "schedule": {"kind": "dynamic", "rate": 0.5}}
    model = MF(dim, optimiser=optimiser, epochs=3, recipe=recipe, user_recipe=recipe, n_jobs=1)
    model.fit(matrix[:99])  # imports and compiles
    held, training, all_of_it = [0], [0], [0]
    make, align = Sampler.of.__func__, MF._align
    base = 0

    def note(counts: bool) -> None:
        """Take down the peak since the last note."""
        peak = tracemalloc.get_traced_memory()[1]
        all_of_it.append(peak)
        if counts:
            training.append(peak - base)
        tracemalloc.reset_peak()

    def sampler(cls: type[Sampler], *arguments: Any) -> Sampler:
        nonlocal base
        made: Sampler = make(cls, *arguments)
        made._groups  # noqa: B018 (kept from the first epoch on)
        note(False)
        base = tracemalloc.get_traced_memory()[0]
        return made

    def epoch(sampler: Any, number: int, *sides_and_more: Any) -> int:
        note(True)
        held.append(sum(field.nbytes for side in sides_and_more[:2] for field in side if isinstance(field, np.ndarray)))
        samples = run_epoch(sampler, number, *sides_and_more)
        note(False)
        return samples

    def aligned(self: MF) -> Any:
        note(True)
        fitted = align(self)
        note(False)
        return fitted

    Sampler.of, mf.run_epoch, MF._align = classmethod(sampler), epoch, aligned  # type: ignore[method-assign,assignment]
    tracemalloc.start()
    model.fit(matrix)
    note(False)
    tracemalloc.stop()
    Sampler.of, mf.run_epoch, MF._align = classmethod(make), run_epoch, align  # type: ignore[method-assign,assignment]
    return {"held bytes": max(held), "training peak bytes": max(training), "fit peak bytes": max(all_of_it)}


def _epoch(matrix: sp.csr_array, dim: int, density: float, optimiser: str) -> Callable[[], tuple[float, float]]:
    rng = np.random.default_rng(0)
    sampler = Sampler.of(matrix, "uniform", 0)
    settings = Settings(0, OPTIMISERS[optimiser], np.float32(RATE), np.float32(REG), 1, np.float32(1))
    recipe = Recipe(density=density, schedule="dynamic")
    own = {} if density == 1 else {"users": ((USERS,), Pruner(recipe)), "items": ((ITEMS,), Pruner(recipe))}
    pruners = Pruners(own, matrix, 0)
    users, items = (Drawn((n, dim), 0.1 / np.sqrt(dim), rng) for n in matrix.shape)
    held: list[Sides] = [pruners.start((users, items), settings.optimiser)]

    def epoch() -> tuple[float, float]:
        start = time.thread_time()
        run_epoch(sampler, 0, *held[0], settings, 1)
        stepped = time.thread_time()
        held[0] = pruners.step(held[0], 1, 0.1)
        return stepped - start, time.thread_time() - stepped

    return epoch


def _in_turns(running: dict[float, Callable[[], tuple[float, float]]]) -> dict[float, npt.NDArray[np.float64]]:
    """Seconds of each, (rounds, 2), of its steps and of its exchange; a round before them compiles."""
    times: dict[float, list[tuple[float, float]]] = {label: [] for label in running}
    for _ in range(ROUNDS + 1):
        for label, epoch in running.items():
            times[label].append(epoch())
    return {label: np.array(each[1:]) for label, each in times.items()}


def main() -> None:
    folder = os.environ.get("RECSPARSE_DATA")
    if not folder:
        sys.exit("Set RECSPARSE_DATA to a folder with ml-1m and gowalla.")
    torch.set_num_threads(THREADS)
    sections = {"bpr": bpr, "quality": quality, "start": start, "cheaper": cheaper}
    for section in sys.argv[1:] or list(sections):
        with threadpool_limits(1, user_api="blas"):
            figures = sections[section](Path(folder))
        machine = {
            "processor": platform.processor() or platform.machine(), "threads": THREADS, "load": os.getloadavg()[0],
            "versions": {name: version(name) for name in ("implicit", "torch", "numba", "numpy")},
            "command": " ".join(["python", *sys.argv]),
        }  # fmt: skip
        RESULTS.mkdir(exist_ok=True)
        document = json.dumps({"machine": machine, "figures": figures}, indent=2)
        (RESULTS / f"training-{section}.json").write_text(document + "\n")


if __name__ == "__main__":
    main()

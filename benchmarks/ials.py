"""iALS beside implicit, irspack and LensKit: time to quality; and how epochs shrink with the solver and the budget.

    python -m venv PEERS && PEERS/bin/pip install implicit irspack lenskit pandas
    RECSPARSE_DATA=... python benchmarks/ials.py tune PEERS/bin/python      # settings, on validation
    RECSPARSE_DATA=... python benchmarks/ials.py race PEERS/bin/python      # time to 99 % of the peers' best, on test
    RECSPARSE_DATA=... python benchmarks/ials.py epochs                     # seconds an epoch, share of GEMM, density

ML-1M with the published split: tuned on its validation pairs, then trained on training and validation pairs and
measured on test. The clock runs while a library trains (its transposing and preparing included), never while factors
are written or measured. A peer is measured with users as training left them and with users solved anew on its items;
the better counts. Everything runs on two threads; rounds take turns, medians are reported.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from recsparse.interactions.interactions import Interactions
from recsparse.kernels.topk import top_k
from recsparse.models import IALS
from recsparse.parallel import resolve_jobs

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SETTINGS = RESULTS / "ials-settings.json"
DIM, EPOCHS, ROUNDS, K, THREADS = 128, 10, 3, 20, 2

FREQUENCY_SCALED = [
    {"alpha0": alpha0, "reg": reg, "nu": 1.0}
    for alpha0, reg in ((0.15, 0.005), (0.15, 0.01), (0.3, 0.005), (0.3, 0.007), (0.3, 0.01), (0.6, 0.005), (0.6, 0.01),
                        (1.0, 0.003))
]  # fmt: skip
# For the others alpha = 1 / alpha0 and reg = reg (n + alpha0 N) / alpha0 of what irspack wants.
TRIED: dict[str, list[dict[str, float]]] = {
    "recsparse": FREQUENCY_SCALED,
    "irspack": FREQUENCY_SCALED,
    "implicit": [{"alpha": a, "reg": reg} for a, reg in ((2.0, 20.0), (2.0, 30.0), (2.0, 50.0), (4.0, 20.0))],
    "lenskit": [{"weight": 2.0, "reg": reg} for reg in (20.0, 30.0)],
}
TUNED_AT = [4, 8]
"""Epochs at which settings are compared."""


def parts() -> dict[str, sp.csr_array]:
    frame = pd.read_parquet(Path(os.environ["RECSPARSE_DATA"]) / "ml-1m" / "ratings.parquet")
    whole = Interactions.from_frame(frame)
    users, items = whole.user_rows(frame["user_id"]), whole.item_rows(frame["item_id"])
    found = {}
    named = {"train": ["train"], "validation": ["validation"], "both": ["train", "validation"], "test": ["test"]}
    for name, kinds in named.items():
        of = frame["split"].isin(kinds).to_numpy()
        ones = np.ones(of.sum(), dtype=np.float32)
        found[name] = sp.csr_array((ones, (users[of], items[of])), shape=whole.shape)
        found[name].sort_indices()
        if not found[name].nnz:
            sys.exit(f"The split has no {kinds}; it has {frame['split'].unique().tolist()}.")
    return found


def ndcg(users: np.ndarray, items: np.ndarray, seen: sp.csr_array, target: sp.csr_array) -> float:
    """NDCG@20 over users with a target, what they have seen left out."""
    rows = np.flatnonzero(np.diff(target.indptr))
    users, seen, target = users[rows], seen[rows], target[rows]
    best, _ = top_k(users @ items.T, K, seen.indptr, seen.indices)
    wanted = target.toarray() > 0
    gains = 1 / np.log2(np.arange(2, K + 2))
    found = (np.take_along_axis(wanted, best, axis=1) * gains).sum(axis=1)
    counts = wanted.sum(axis=1)
    most = np.concatenate([[0], np.cumsum(gains)])[np.minimum(counts, K)]
    return float((found / most).mean())


def run_peer(
    python: str, peer: str, fit: sp.csr_array, settings: dict[str, Any], target: sp.csr_array, measure: bool = True
) -> dict[str, Any]:
    """Train a peer in its own process; NDCG@20, wall and processor seconds up to each epoch."""
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        sp.save_npz(folder / "matrix.npz", sp.csr_matrix(fit))
        (folder / "settings.json").write_text(json.dumps({"dim": DIM, "epochs": EPOCHS} | settings))
        subprocess.run(
            [python, str(HERE / "ials_peers.py"), peer, folder / "matrix.npz", folder / "settings.json", folder],
            check=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": str(THREADS)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        found: dict[str, Any] = json.loads((folder / "times.json").read_text())
        found["ndcg"] = {}
        for file in sorted(folder.glob("[0-9]*.npz"), key=lambda path: int(path.stem)) if measure else ():
            factors = np.load(file)
            each = [ndcg(factors[users], factors["items"], fit, target) for users in ("users", "again")]
            found["ndcg"][file.stem] = max(each)
    return found


def run_ours(fit: Interactions, settings: dict[str, Any], epochs: int) -> tuple[IALS, float, float]:
    model = IALS(**{"dim": DIM, "epochs": epochs, "n_jobs": THREADS} | settings)
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(fit)
    return model, time.perf_counter() - wall, time.process_time() - cpu


def our_ndcg(model: IALS, fit: Interactions, target: sp.csr_array) -> float:
    return ndcg(model.fold_in(fit.matrix), model.item_table_.to_dense(), fit.matrix, target)


def tune(python: str) -> None:
    data = parts()
    train = Interactions.from_csr(data["train"])
    asked = data["validation"].copy()  # every third user is enough to choose by
    asked.data[np.repeat(np.arange(asked.shape[0]) % 3 != 0, np.diff(asked.indptr))] = 0
    asked.eliminate_zeros()
    known = json.loads(SETTINGS.read_text()) if SETTINGS.exists() else {}
    for name, candidates in TRIED.items():
        tried = known.setdefault(name, {"tried": []})["tried"]
        for settings in candidates:
            if any(each["settings"] == settings for each in tried):
                continue
            if name == "recsparse":
                quality = {
                    epochs: our_ndcg(run_ours(train, {"solver": "cg", **settings}, epochs)[0], train, asked)
                    for epochs in TUNED_AT
                }
            else:
                keep = {"keep": TUNED_AT, "epochs": TUNED_AT[-1]}
                quality = run_peer(python, name, data["train"], settings | keep, asked)["ndcg"]
            tried.append({"settings": settings, "validation": quality, "best": max(quality.values())})
            print(name, json.dumps(tried[-1]), flush=True)
            known[name]["settings"] = max(tried, key=lambda each: each["best"])["settings"]
            RESULTS.mkdir(exist_ok=True)
            SETTINGS.write_text(json.dumps(known, indent=1) + "\n")


def race(python: str) -> dict[str, Any]:
    data = parts()
    chosen = {name: each["settings"] for name, each in json.loads(SETTINGS.read_text()).items()}
    both = Interactions.from_csr(data["both"])
    peers = {
        name: run_peer(python, name, data["both"], chosen[name], data["test"]) for name in TRIED if name != "recsparse"
    }
    print({name: peer["ndcg"] for name, peer in peers.items()}, flush=True)
    best = max(max(peer["ndcg"].values()) for peer in peers.values())
    goal = 0.99 * best
    run_ours(both, {"solver": "cg"} | chosen["recsparse"], 1)  # compiles, or loads what was compiled
    solvers = {"cg": {"solver": "cg"}, "cholesky": {"solver": "cholesky"}, "block": {"solver": "block"}}
    ours: dict[str, dict[str, Any]] = {}
    for solver, settings in solvers.items():
        qualities = {}
        for epochs in range(1, EPOCHS + 1):
            qualities[epochs] = our_ndcg(run_ours(both, settings | chosen["recsparse"], epochs)[0], both, data["test"])
            if qualities[epochs] >= goal and epochs >= 4:
                break
        ours[solver] = {"ndcg": qualities, "needed": first(qualities, goal), "wall": [], "cpu": []}
    for peer in peers.values():
        peer["needed"] = first({int(epoch): value for epoch, value in peer["ndcg"].items()}, goal)
        peer["wall"], peer["cpu"] = [], []
    for number in range(ROUNDS):
        for name, peer in peers.items():
            needed = peer["needed"]
            if needed is not None:
                settings = chosen[name] | {"epochs": needed, "keep": []}
                spent = run_peer(python, name, data["both"], settings, data["test"], measure=False)["times"]
                peer["wall"].append(spent[needed - 1][0])
                peer["cpu"].append(spent[needed - 1][1])
        for solver, settings in solvers.items():
            if ours[solver]["needed"] is not None:
                _, wall, cpu = run_ours(both, settings | chosen["recsparse"], ours[solver]["needed"])
                ours[solver]["wall"].append(wall)
                ours[solver]["cpu"].append(cpu)
        print(f"round {number + 1}", flush=True)
    rows = {name: row(peer) | {"version": peer["version"]} for name, peer in peers.items()}
    rows |= {f"recsparse {solver}": row(each) for solver, each in ours.items()}
    reached = [each["wall_seconds"] for name, each in rows.items() if name in peers and each["wall_seconds"]]
    reached_cpu = [each["cpu_seconds"] for name, each in rows.items() if name in peers and each["cpu_seconds"]]
    fast = rows["recsparse cg"]
    return {
        "best_ndcg_of_peers": best, "goal": goal, "settings": chosen, "rounds": ROUNDS, "dim": DIM, "rows": rows,
        "times_faster_than_fastest_peer": min(reached) / fast["wall_seconds"],
        "times_faster_in_processor_seconds": min(reached_cpu) / fast["cpu_seconds"],
    }  # fmt: skip


def first(qualities: dict[int, float], goal: float) -> int | None:
    return next((epoch for epoch, quality in sorted(qualities.items()) if quality >= goal), None)


def row(each: dict[str, Any]) -> dict[str, Any]:
    return {
        "epochs_to_goal": each["needed"], "best_ndcg": max(each["ndcg"].values()),
        "wall_seconds": statistics.median(each["wall"]) if each["wall"] else None,
        "cpu_seconds": statistics.median(each["cpu"]) if each["cpu"] else None,
        "wall_of_rounds": each["wall"], "ndcg_by_epoch": each["ndcg"],
    }  # fmt: skip


def gemm_peak() -> float:
    """GFLOP a processor second of a float32 product of 3000-cubes, the best of three: what one core can do."""
    a = np.random.default_rng(0).standard_normal((3000, 3000), dtype=np.float32)
    a @ a
    best = 0.0
    for _ in range(3):
        began = time.process_time()
        a @ a
        best = max(best, 2 * 3000**3 / (time.process_time() - began) / 1e9)
    return best


def epoch_seconds(fit: Interactions, **settings: Any) -> tuple[float, float]:
    """Wall and processor seconds of the quickest epoch but the first."""
    stamps = [(time.perf_counter(), time.process_time())]
    IALS(epochs=4, n_jobs=THREADS, **settings).fit(
        fit, on_epoch=lambda epoch, metric: stamps.append((time.perf_counter(), time.process_time()))
    )
    spent = np.diff(np.array(stamps)[1:], axis=0)
    return float(spent[:, 0].min()), float(spent[:, 1].min())


def epochs() -> dict[str, Any]:
    both = Interactions.from_csr(parts()["both"])
    (n_users, n_items), nnz = both.shape, both.nnz
    IALS(dim=8, epochs=1).fit(both)
    peak = gemm_peak()
    solvers = []
    for dim in (64, 128, 256):
        flops = 2 * nnz * dim * (dim + 1) + (n_users + n_items) * (dim**3 / 3 + 2 * dim**2)
        for solver in ("cholesky", "cg", "block"):
            wall, cpu = epoch_seconds(both, dim=dim, solver=solver)
            line: dict[str, Any] = {"dim": dim, "solver": solver, "wall": wall, "cpu": cpu}
            if solver == "cholesky":
                line["share_of_gemm"] = flops / cpu / 1e9 / peak
            solvers.append(line)
            print(json.dumps(line), flush=True)
    budgets = list(by_density(both))
    return {"gemm_gflop_per_cpu_second": peak, "solvers": solvers, "budgets": budgets}


def by_density(fit: Interactions) -> Iterator[dict[str, Any]]:
    for density in (1.0, 0.5, 0.25, 0.1, 0.05, 0.02):
        recipe = None if density == 1.0 else {"density": density, "schedule": "dynamic"}
        wall, cpu = epoch_seconds(fit, dim=DIM, recipe=recipe)
        tracemalloc.start()
        IALS(dim=DIM, epochs=2, n_jobs=THREADS, recipe=recipe).fit(fit)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        line = {"density": density, "wall": wall, "cpu": cpu, "peak_mib": peak / 2**20}
        print(json.dumps(line), flush=True)
        yield line


def main() -> None:
    if "RECSPARSE_DATA" not in os.environ or len(sys.argv) < 2 or sys.argv[1] not in ("tune", "race", "epochs"):
        sys.exit(__doc__)
    if sys.argv[1] == "tune":
        tune(sys.argv[2])
        return
    found = race(sys.argv[2]) if sys.argv[1] == "race" else epochs()
    found |= {
        "command": f"python benchmarks/ials.py {sys.argv[1]}", "data": "ML-1M, published split",
        "machine": f"{platform.system()} {platform.machine()}, {resolve_jobs(None)} cores",
        "load": os.getloadavg(), "versions": {name: version(name) for name in ("numpy", "numba", "scipy")},
    }  # fmt: skip
    (RESULTS / f"ials-{sys.argv[1]}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "settings"}, indent=1))


if __name__ == "__main__":
    main()

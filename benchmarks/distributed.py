"""Samples a second of sharded training beside the bare torchrec loop, bytes sent and balance, in one run.

    torchrun --nproc-per-node 2 benchmarks/distributed.py --interactions 1000000 --output FILE

The bare loop has the same tables, ranks and batches, drawn beforehand and kept in memory: a lookup, the loss and the
backward pass. Ours reads Parquet, draws negatives, notes losses and counts bytes. Rounds alternate, the median counts.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.distributed as dist

from recsparse.distributed.config import TrainConfig
from recsparse.distributed.losses import sample_losses
from recsparse.distributed.process import gather, joined
from recsparse.distributed.streams import scan
from recsparse.distributed.trainer import ITEMS, USERS, Trainer
from recsparse.files import atomic_file
from recsparse.interactions import Interactions, write


def make_data(folder: Path, users: int, items: int, interactions: int) -> Path:
    """Popular items first: an item's share falls with its row r as 1 / (r + 10)."""
    rng = np.random.default_rng(0)
    share = 1 / (np.arange(items) + 10.0)
    columns = rng.choice(items, interactions, p=share / share.sum())
    rows = rng.integers(0, users, interactions)
    matrix = sp.csr_array((np.ones(interactions, np.float32), (rows, columns)), shape=(users, items))
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return write(Interactions.from_csr(matrix), folder / "data")


def rate(step: Any, steps: range) -> tuple[float, float]:
    """Samples a second, and samples a second of CPU, over all ranks; ``step(t)`` gives this rank's samples."""
    dist.barrier()
    began, worked = time.perf_counter(), time.process_time()
    n = sum(step(t) for t in steps)
    worked = time.process_time() - worked
    dist.barrier()
    taken = time.perf_counter() - began
    samples = sum(gather(n))
    return samples / taken, samples / sum(gather(worked))


def build(data: Path, rank: int, world: int, **change: Any) -> Trainer:
    config = TrainConfig.parse({"data": str(data), "output": "unused", "dim": 64, "batch_size": 16384} | change)
    return Trainer.build(config, data, scan(data, rank, world), rank, world)


def overhead(data: Path, rank: int, world: int, rounds: int, steps: int) -> dict[str, Any]:
    trainer, bare = build(data, rank, world), build(data, rank, world)
    steps = min(steps, trainer.streams.steps)
    batches = [
        (torch.from_numpy(batch.users), torch.from_numpy(batch.items).view(-1))
        for batch in (bare.streams.batch(0, t) for t in range(steps))
    ]
    config, sharded = bare.config, bare.tables.sharded

    def bare_step(t: int) -> int:
        users, items = batches[t]
        found = sharded.lookup({USERS: users, ITEMS: items})
        vectors = found[ITEMS].view(len(users), 2, config.dim)
        sharded.descend(sample_losses("bpr", found[USERS], vectors, reg=config.reg, negative_weight=1.0).sum())
        return len(users)

    def our_step(t: int) -> int:
        batch = trainer.streams.batch(0, t)
        with trainer.traffic.counted():
            trainer.step(batch, t)
        return len(batch.users)

    rates: dict[str, list[tuple[float, float]]] = {"bare": [], "ours": []}
    for warm in (bare_step, our_step):
        rate(warm, range(min(3, steps)))
    for _ in range(rounds):
        rates["bare"].append(rate(bare_step, range(steps)))
        rates["ours"].append(rate(our_step, range(steps)))
    found: dict[str, Any] = {"steps": steps, "rounds": rounds}
    for at, kind in enumerate(("samples_per_second", "samples_per_cpu_second")):
        each = {name: [pair[at] for pair in pairs] for name, pairs in rates.items()}
        ratios = [ours / bare for ours, bare in zip(each["ours"], each["bare"], strict=True)]
        found[kind] = {name: statistics.median(values) for name, values in each.items()}
        found[f"ratio_of_{kind}"] = statistics.median(ratios)
        found[f"ratios_of_{kind}"] = [round(ratio, 3) for ratio in ratios]
    return found


def traffic(data: Path, rank: int, world: int, steps: int) -> dict[str, Any]:
    """Bytes a rank sends a step, and max / mean rows asked, for tables sparse in different ways.

    Counted from the step on at which they are sparse; ``cpu_seconds_a_rank_and_step`` is what that costs or saves here.
    """
    n_users, n_items = (int(json.loads((data / "dataset.json").read_text())["counts"][k]) for k in ("users", "items"))
    budget = {"rows": n_items // 5, "every": 10, "utility": "frequency"}
    quick = {"schedule": {"kind": "gradual", "start": 0.0, "end": 0.01}}
    rows = {"density": 0.2, "granularity": "row", "criterion": "frequency", **quick}
    cases: dict[str, dict[str, Any]] = {
        "dense": {},
        "dense, items placed by popularity": {"items": {"placement": "balanced"}},
        "20 % of item rows, by budget": {"items": {"budget": budget}},
        "20 % of user and item rows, by budget": {
            "items": {"budget": budget}, "users": {"budget": budget | {"rows": n_users // 5}}
        },
        "20 % of item elements, by recipe": {"items": {"recipe": {"density": 0.2, **quick}}, "prune_every": 10},
        "20 % of user and item elements, by recipe": {
            "users": {"recipe": {"density": 0.2, **quick}}, "items": {"recipe": {"density": 0.2, **quick}},
            "prune_every": 10,
        },
        "20 % of item elements, dynamic": {
            "items": {"recipe": {"density": 0.2, "schedule": "dynamic"}}, "prune_every": 10
        },
        "20 % of item rows, by recipe (frequency)": {"items": {"recipe": rows}, "prune_every": 10},
        "20 % of item rows, by recipe (frequency), placed by popularity": {
            "items": {"recipe": rows, "placement": "balanced"}, "prune_every": 10
        },
    }  # fmt: skip
    found = {}
    for name, change in cases.items():
        trainer = build(data, rank, world, **change)
        began = 0.0
        for t in range(2 * steps):
            if t == steps:
                trainer.traffic.sent, trainer.asked = 0, Counter(dict.fromkeys(trainer.asked, 0))
                began = time.process_time()
            with trainer.traffic.counted():
                trainer.step(trainer.streams.batch(0, t % trainer.streams.steps), t)
        asked = [each[ITEMS] for each in gather(trainer.asked)]
        found[name] = {
            "bytes_sent_a_rank_and_step": sum(gather(trainer.traffic.sent)) / world / steps,
            "cpu_seconds_a_rank_and_step": sum(gather(time.process_time() - began)) / world / steps,
            "item_rows_asked_max_over_mean": max(asked) / (sum(asked) / world),
            "remap_bytes": sum(rows.nbytes for rows in trainer.tables.rows.values()),
            "seconds_a_budget_update": statistics.mean(trainer.update_seconds) if trainer.update_seconds else None,
        }
    for each in found.values():
        share = each["bytes_sent_a_rank_and_step"] / max(1.0, found["dense"]["bytes_sent_a_rank_and_step"])
        each["bytes_against_dense"] = share
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/distributed.json"))
    options = parser.parse_args()
    with joined(120) as (rank, world), tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder), options.users, options.items, options.interactions)
        result = {
            "command": f"torchrun --nproc-per-node {world} benchmarks/distributed.py "
            f"--rounds {options.rounds} --steps {options.steps}",
            "machine": f"{platform.machine()}, {torch.get_num_threads()} thread a rank, {world} ranks on one machine",
            "versions": {name: version(name) for name in ("torch", "torchrec", "fbgemm-gpu-cpu", "numpy")},
            "data": {"users": options.users, "items": options.items, "drawn": options.interactions, "dim": 64},
            "overhead": overhead(data, rank, world, options.rounds, options.steps),
            "traffic": traffic(data, rank, world, options.steps),
        }
        if rank == 0:
            with atomic_file(options.output) as partial:
                partial.write_text(json.dumps(result, indent=1) + "\n")
            print(json.dumps(result["overhead"]), json.dumps(result["traffic"], indent=1))


if __name__ == "__main__":
    main()

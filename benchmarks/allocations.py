"""Where a budget should go: the allocations of a recipe at equal density, MovieLens-1M, on validation users.

    RECSPARSE_DATA=DIR python benchmarks/allocations.py --seeds 3

iALS with 128 columns under the settings, splits and schedule of ``frontier.py``; the users are the validation users of
every seed. Each row is paired with ``global`` at its density. Writes ``benchmarks/results/allocations.json``.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from frontier import METRICS, split_of

from recsparse.evaluation import evaluate, paired
from recsparse.evaluation.pool import pool
from recsparse.models import IALS
from recsparse.pipeline.results import machine, versions

HERE = Path(__file__).resolve().parent
BASE: dict[str, Any] = {"dim": 128, "epochs": 14, "solver": "cg", "alpha0": 1.0, "reg": 0.003, "n_jobs": 2}
ALLOCATIONS: dict[str, Any] = {
    "global": "global",
    "uniform": "uniform",
    "best-rows": {"kind": "best-rows", "share": 0.4},
    "popularity-groups": "popularity-groups",
    "sensitivity, 5 parts": "sensitivity",
    "sensitivity, 20 parts": {"kind": "sensitivity", "groups": 20},
}
SCHEDULES: dict[str, Any] = {"oneshot": "oneshot", "gradual": {"kind": "gradual", "start": 0.3, "end": 0.9}}
KEPT = {"oneshot": [4, 8, 12], "gradual": [4, 12]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    work = Path("runs") / "frontier" / "ml-1m"
    splits = [split_of("ml-1m", seed, work)[0] for seed in range(seeds)]
    rows = []
    for schedule, when in SCHEDULES.items():
        for kept in KEPT[schedule]:
            reference = None
            for label, allocation in ALLOCATIONS.items():
                if schedule == "gradual" and label.endswith("20 parts"):
                    continue  # measured anew at each epoch: minutes a row
                recipe = {"density": kept / BASE["dim"], "schedule": when, "allocation": allocation}
                begun, found, sizes = time.perf_counter(), [], []
                for seed, parts in enumerate(splits):
                    model = IALS(**BASE, recipe=recipe, random_state=seed).fit(parts.train)
                    sizes.append(model.repack("int4").item_table_.nbytes / parts.train.shape[1])
                    found.append(evaluate(model, parts.validation, METRICS))
                pooled = pool(found)
                reference = reference or pooled
                row = {
                    "schedule": schedule, "kept": kept, "allocation": label,
                    "int4_bytes_per_item": sum(sizes) / seeds,
                    "metrics": {name: summary.to_dict() for name, summary in pooled.summaries.items()},
                    "against global": {gap.metric: gap.to_dict() for gap in paired(pooled, reference, METRICS)},
                    "seconds": time.perf_counter() - begun,
                }  # fmt: skip
                rows.append(row)
                print(schedule, kept, label, *(f"{pooled.summaries[name].mean:.4f}" for name in METRICS),
                      f"{row['int4_bytes_per_item']:.1f} B {row['seconds']:.0f} s", flush=True)  # fmt: skip
    document = {"settings": BASE, "seeds": seeds, "machine": machine(), "versions": versions(), "rows": rows}
    (HERE / "results" / "allocations.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

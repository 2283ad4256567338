"""What the metrics cost beside the scoring they need: at most a quarter of it.

Run from the checkout, on ML-1M and Gowalla in the folder RECSPARSE_DATA:

    RECSPARSE_DATA=... python benchmarks/evaluation.py

Scoring is ``scores(queries(history))`` of an iALS model, as `evaluate` does it; the rest of `evaluate` (ranks of all
targets, every metric, the digest and the checks) is the metrics' time. Both are medians of the same repetitions, in
seconds of processor time over all threads, which other work on the machine disturbs less than the clock on the wall.
"""

import json
import os
import platform
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd

from recsparse.evaluation import evaluate
from recsparse.evaluation.ranking import score_blocks
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.models.ials import IALS

METRICS = [
    "ndcg@10", "ndcg@20", "ndcg@100", "recall@20", "recall@50", "recall_capped@20", "precision@10", "map@10", "mrr",
    "hit@10", "r_precision", "auc",
]  # fmt: skip
REPETITIONS = 7


def movielens(folder: Path) -> tuple[Interactions, Interactions]:
    frame = pd.read_parquet(folder / "ml-1m" / "ratings.parquet")
    whole = Interactions.from_frame(frame)
    parts = []
    for is_test in (False, True):
        part = Interactions.from_frame(frame[(frame["split"] == "test") == is_test]).with_items(whole.items)
        rows = part.user_rows(whole.user_ids)
        parts.append(part.select_users(rows[rows >= 0]))
    return parts[0], parts[1]


def gowalla(folder: Path) -> tuple[Interactions, Interactions]:
    frames = {}
    for name in ("train", "valid", "test"):
        lines = [line.split() for line in (folder / "gowalla" / f"{name}.txt").read_text().splitlines()]
        frames[name] = pd.DataFrame(
            [(int(line[0]), int(item)) for line in lines for item in line[1:]], columns=["user_id", "item_id"]
        )
    train = Interactions.from_frame(pd.concat([frames["train"], frames["valid"]]))
    return train, Interactions.from_frame(frames["test"]).with_items(train.items)


def measure(name: str, train: Interactions, target: Interactions, dim: int) -> dict[str, object]:
    rows = train.user_rows(target.user_ids)
    known = np.flatnonzero(rows >= 0)
    holdout = Holdout(train.select_users(rows[known]), target.select_users(known))
    model = IALS(dim=dim, epochs=3).fit(train)
    evaluate(model, holdout, METRICS)
    scoring, whole = [], []
    for _ in range(REPETITIONS):
        began = time.process_time()
        for _block in score_blocks(model, holdout.history):
            pass
        scoring.append(time.process_time() - began)
        began = time.process_time()
        evaluate(model, holdout, METRICS)
        whole.append(time.process_time() - began)
    seconds = statistics.median(scoring)
    more = statistics.median(whole) - seconds
    began = time.process_time()
    evaluate(model, holdout, METRICS).summaries  # noqa: B018 (computed on access)
    found = {
        "data": name, "users": (users := holdout.target.shape[0]), "items": train.shape[1],
        "targets": holdout.target.nnz, "dim": dim, "metrics": len(METRICS),
        "scoring_cpu_seconds": round(seconds, 3), "metric_cpu_seconds": round(more, 3),
        "share": round(more / seconds, 3), "users_per_cpu_second": round(users / statistics.median(whole)),
        "intervals_cpu_seconds": round(time.process_time() - began - statistics.median(whole), 3),
    }  # fmt: skip
    print(json.dumps(found))
    return found


def main() -> None:
    folder = os.environ.get("RECSPARSE_DATA")
    if not folder:
        sys.exit("Set RECSPARSE_DATA to a folder with ml-1m and gowalla.")
    data = Path(folder)
    rows = [measure("ML-1M", *movielens(data), dim=64), measure("Gowalla", *gowalla(data), dim=64)]
    versions = {name: metadata.version(name) for name in ("numpy", "numba", "scipy")}
    result = {
        "command": "python benchmarks/evaluation.py", "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": versions, "repetitions": REPETITIONS, "rows": rows,
    }  # fmt: skip
    path = Path(__file__).parent / "results" / "evaluation.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

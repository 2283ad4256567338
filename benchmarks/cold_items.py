"""Do features find new items? Feature MF and feature iALS beside MF, content-kNN, popularity and chance, on ML-1M.

Run from the checkout, with `movies.dat`, `users.dat` and `ratings.parquet` in the folder RECSPARSE_DATA/ml-1m:

    RECSPARSE_DATA=... python benchmarks/cold_items.py

A tenth of the items is taken out of training, another tenth for settings (chosen by hand on those of seed 1). New items
are ranked among themselves, and in the whole catalogue. Two seeds of split and training, a user pooled over them. The
last table is of users that training never saw and items that it did: what the prior brings or costs there.
"""

import json
import os
import re
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa

from recsparse.evaluation import Evaluation, evaluate, holm, paired
from recsparse.evaluation.baselines import ContentKNN, Random
from recsparse.evaluation.cold_items import evaluate_cold_items
from recsparse.evaluation.pool import pool
from recsparse.interactions import Interactions, split
from recsparse.models import IALS, MF, FeatureIALS, FeatureMF, Popularity, Recommender
from recsparse.pipeline.results import machine, versions

SEEDS = (1, 2)
METRICS = ["ndcg@20", "recall@50"]


def movielens(folder: Path) -> Interactions:
    """The ratings, films with year and genres, users with gender, age group and occupation."""
    films = [line.split("::") for line in (folder / "movies.dat").read_text("latin-1").splitlines()]
    years = {int(film): int(re.search(r"\((\d{4})\)$", title.strip())[1]) for film, title, _ in films}  # type: ignore[index]
    genres = {int(film): kinds.split("|") for film, _, kinds in films}
    people = {int(user): rest for user, *rest in (line.split("::") for line in (folder / "users.dat").open())}
    bare = Interactions.from_frame(pd.read_parquet(folder / "ratings.parquet", columns=["user_id", "item_id"]))
    items, users = bare.items, bare.users
    items = items.append_column("year", pa.array([years[film] for film in bare.item_ids.tolist()]))
    items = items.append_column("genres", pa.array([genres[film] for film in bare.item_ids.tolist()]))
    for at, name in enumerate(("gender", "age", "occupation")):
        users = users.append_column(name, pa.array([people[user][at] for user in bare.user_ids.tolist()]))
    return Interactions(bare.matrix, users, items)


def models(seed: int) -> dict[str, Recommender]:
    """What is compared; MF on one thread, so that it can be repeated."""
    bpr = {"dim": 64, "epochs": 50, "reg": 0.01, "random_state": seed, "n_jobs": 1}
    ials = {"dim": 64, "alpha0": 0.3, "random_state": seed}
    return {
        "random": Random(seed), "popularity": Popularity(), "content-knn": ContentKNN(),
        "ials": IALS(**ials), "feature-ials": FeatureIALS(**ials),
        "mf bpr": MF(**bpr), "feature-mf bpr": FeatureMF(**bpr),
        "feature-mf softmax": FeatureMF(**bpr | {"epochs": 20, "loss": "softmax", "n_negatives": 8}),
    }  # fmt: skip


def told(evaluations: list[Evaluation]) -> dict[str, object]:
    return {
        metric: {"mean": round(one.mean, 4), "low": round(one.low, 4), "high": round(one.high, 4), "users": one.users}
        for metric, one in pool(evaluations).summaries.items()
    }


def main() -> None:
    folder = os.environ.get("RECSPARSE_DATA")
    if not folder:
        sys.exit("Set RECSPARSE_DATA to a folder with ml-1m.")
    whole = movielens(Path(folder) / "ml-1m")
    found: dict[str, dict[str, list[Evaluation]]] = {"among new items": {}, "among all items": {}, "unseen users": {}}
    for seed in SEEDS:
        parts = split(whole, "cold-items", seed=seed, validation=0.1, test=0.1)
        known = split(whole, "strong", seed=seed, validation=0.1, test=0.1)
        for name, model in models(seed).items():
            model.fit(parts.train)
            for label, against in (("among new items", "cold"), ("among all items", "all")):
                one = evaluate_cold_items(model, parts.test, METRICS, against=against, name=name)
                found[label].setdefault(name, []).append(one)
            if name in ("mf bpr", "feature-mf bpr"):
                found["unseen users"].setdefault(name, []).append(
                    evaluate(model.fit(known.train), known.test, METRICS, name=name)
                )
            print(seed, name, found["among new items"][name][-1], flush=True)
    pooled = {name: pool(found["among new items"][name]) for name in found["among new items"]}
    others = ("content-knn", "mf bpr", "feature-ials", "feature-mf softmax")
    differences = holm([paired(pooled["feature-mf bpr"], pooled[other], ["ndcg@20"])[0] for other in others])
    result = {
        "command": "python benchmarks/cold_items.py", "machine": machine(), "versions": versions(), "seeds": SEEDS,
        "tables": {label: {name: told(each) for name, each in table.items()} for label, table in found.items()},
        "feature-mf bpr, ndcg@20 among new items": {
            one.b: {"more by": round(one.difference, 4), "low": round(one.low, 4), "high": round(one.high, 4),
                    "p_holm": one.p_holm} for one in differences
        },
    }  # fmt: skip
    path = Path(__file__).parent / "results" / "cold-items.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Our models under protocols of published papers, beside the rows printed there.

    RECSPARSE_DATA=DIR python benchmarks/protocols.py p1-ml-1m p1-gowalla p2 p3 p4

Settings are chosen on validation users' targets only; the test is looked at once a row. What was measured is kept below
``runs/protocols`` and not done again. Writes ``benchmarks/results/protocols-SECTION.json`` and prints the tables.

- p1: 50/25/25 of each user's interactions, sparsity as the share of the item table's 128 columns removed (CIESS, SIGIR
  2023; BET, WSDM 2024, whose users have vectors as well: ours are folded in and stored nowhere). Recall and NDCG at 20,
  with training items masked, and with validation items masked too, for the papers do not say which.
- p2: Gowalla as split for LightGCN; train and validation are its training part (rows: BARS). Settings are chosen on the
  ends of users' lists (:func:`frontier.by_order`).
- p3: MovieLens-1M as split for infinite-AE; NDCG@10, training and validation given and masked.
- p4: MovieLens-1M, at least 4 against at most 2, a user's last two actions held out; AUC over all of them (rows: the
  result files of CCE's repository; its tables hold users too).

Rows "by degree" have ``degree_power`` 1/4.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import frontier
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from recsparse.evaluation import evaluate
from recsparse.interactions import Interactions, Split, split
from recsparse.interactions.protocols import TEST, TRAIN, VALIDATION
from recsparse.interactions.split import Holdout
from recsparse.models import EASE, IALS, MF, BiasedMF, ItemKNN, Popularity, Recommender, SparseEASE
from recsparse.pipeline.results import machine, versions

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/protocols")
HISTORY = "training and validation"
DEGREE_POWER = 0.25
GRADUAL = {"kind": "gradual", "start": 0.3, "end": 0.9}
Row = dict[str, Any]

PUBLISHED: dict[str, Any] = {
    "p1-ml-1m": {
        "metrics": ["recall@20", "ndcg@20"], "source": "CIESS, arXiv 2304.03501",
        "PEP": {"80 %": [0.2098, 0.3778], "90 %": [0.1988, 0.3641], "95 %": [0.1789, 0.3315]},
        "small dense": {"80 %": [0.2248, 0.3969], "90 %": [0.2105, 0.3787], "95 %": [0.1752, 0.3272]},
        "CIESS": {"80 %": [0.2436, 0.4257], "90 %": [0.2248, 0.4023], "95 %": [0.2009, 0.3664]},
    },
    "p1-gowalla": {
        "metrics": ["recall@20", "ndcg@20"], "source": "BET, arXiv 2310.14884",
        "PEP": {"80 %": [0.1588, 0.1347], "90 %": [0.1274, 0.1102], "95 %": [0.0803, 0.0712]},
        "small dense": {"80 %": [0.1674, 0.1400], "90 %": [0.1477, 0.1217], "95 %": [0.1085, 0.0872]},
        "BET": {"80 %": [0.1753, 0.1483], "90 %": [0.1620, 0.1376], "95 %": [0.1374, 0.1171]},
    },
    "p2": {
        "metrics": ["recall@20", "ndcg@20"], "source": "BARS",
        "MF-BPR": [0.1627, 0.1378], "ItemCF": [0.1570, 0.1214], "SLIM": [0.1699, 0.1382], "EASE": [0.1765, 0.1467],
        "LightGCN": [0.1820, 0.1547], "GF-CF": [0.1849, 0.1518], "UltraGCN": [0.1862, 0.1580],
        "SimpleX": [0.1872, 0.1557],
    },
    "p3": {
        "metrics": ["ndcg@10"], "source": "infinite-AE, NeurIPS 2022",
        "popularity": [0.1384], "MF": [0.2565], "LightGCN": [0.2885], "EASE": [0.2988], "infinite-AE": [0.3282],
    },
    "p4": {
        "metrics": ["auc"], "source": "result files of CCE (thomasahle/cce)",
        "full": [0.874], "low-dim, 4.8x": [0.859], "low-dim, 9.5x": [0.853], "low-dim, 19x": [0.851],
        "DHE, 19x": [0.813], "HashedNet, 38x": [0.793],
    },
}  # fmt: skip


def kept(work: Callable[[], Row], *what: object) -> Row:
    """Do it, or read what it gave before."""
    file = RUNS / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}.json"
    if not file.exists():
        start = time.perf_counter()
        row = work() | {"seconds": round(time.perf_counter() - start, 1)}
        RUNS.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(row))
        print(f"{what}: {row}", file=sys.stderr, flush=True)
    found: Row = json.loads(file.read_text())
    return found


def best(name: str, candidates: Sequence[Recommender], parts: Split, metric: str) -> Recommender:
    """The candidate with the best metric on the validation part; an only one is not tried there."""

    def reached(model: Recommender) -> float:
        def work() -> Row:
            fitted = clone(model).fit(parts.train)
            found = evaluate(fitted, parts.validation, [metric], role="validation")
            return {metric: found.summaries[metric].mean}

        return float(kept(work, name, "validation", model)[metric])

    return candidates[0] if len(candidates) == 1 else max(candidates, key=reached)


def grid(kind: type[Recommender], fixed: dict[str, Any], **choices: Sequence[Any]) -> list[Recommender]:
    """Every combination of the choices."""
    found: list[dict[str, Any]] = [fixed]
    for key, values in choices.items():
        found = [settings | {key: value} for settings in found for value in values]
    return [kind(**settings) for settings in found]


def crowds(model: Recommender) -> list[Recommender]:
    """An iALS, and the same with users of few interactions pulled to the mean user; it learns the same tables."""
    return [model, *(clone(model).set_params(crowd=crowd) for crowd in (1.0, 2.0, 3.0, 4.0))]


def tested(name: str, label: str, model: Recommender, train: Interactions, test: Holdout, metrics: list[str],
           masks: dict[str, Interactions | None], **how: Any) -> list[Row]:  # fmt: skip
    """Fit and look at the test, once for each of the masks: what is left out of the candidates."""

    def work() -> Row:
        fitted = clone(model).fit(train)
        table = getattr(fitted, "item_table_", None)
        row: Row = {"bytes_per_item": None if table is None else table.nbytes / table.shape[0]}
        for mask, seen in masks.items():
            found = evaluate(fitted, test, metrics, seen=seen, **how)
            row[mask] = {metric: found.summaries[metric].to_dict() for metric in metrics}
        return row

    row = {"label": label, "settings": {key: value for key, value in model.get_params().items() if value is not None}}
    row |= kept(work, name, label, model)
    found = {mask: row.pop(mask) for mask in masks}
    return [row | {"mask": mask, "metrics": means} for mask, means in found.items()]


def ml_1m(folder: Path) -> pd.DataFrame:
    found: pd.DataFrame = pq.read_table(folder / "ml-1m" / "ratings.parquet").to_pandas()
    return found


def p1(
    name: str, pairs: pd.DataFrame, tune: dict[str, list[float]], epochs: list[int], seeds: int,
    wide: int | None = None,
) -> list[Row]:  # fmt: skip
    metrics = ["recall@20", "ndcg@20"]
    data = Interactions.from_frame(pairs[["user_id", "item_id"]])
    splits = [split(data, "50-25-25", seed=seed) for seed in range(seeds)]
    rows = []
    for (seed, parts), power in product(enumerate(splits), (0.0, DEGREE_POWER)):
        test = parts.test
        in_training = parts.train.user_rows(test.history.user_ids)
        known = Interactions(parts.train.matrix[in_training], test.history.users, parts.train.items)
        words = " by degree" if power else ""

        def dense(dim: int, power: float = power) -> Recommender:
            settings = {"solver": "cg", "epochs": 10, "degree_power": power, "dim": dim}
            return best(name, grid(IALS, settings, **tune), splits[0], "ndcg@20")

        def pruned(whole: Recommender, density: float) -> Recommender:
            recipes = [{"density": density, "schedule": schedule} for schedule in (GRADUAL, "tickets")]
            return best(name, grid(IALS, whole.get_params(), recipe=recipes, epochs=epochs), splits[0], "ndcg@20")

        models = [("dense", dense(128))]
        for density in (0.2, 0.1, 0.05):
            sparsity = f"{1 - density:.0%}".replace("%", " %")
            models.append((f"small dense, {sparsity}", dense(round(128 * density))))
            models.append((f"element, {sparsity}", pruned(dense(128), density)))
            if wide is not None:  # as many values an item, out of more columns
                models.append((f"element of {wide} columns, {sparsity}", pruned(dense(wide), density * 128 / wide)))
        for label, model in models:
            masks = {"training": known, HISTORY: None}
            found = tested(f"{name} {seed}", label + words, model, parts.train, test, metrics, masks)
            rows += [row | {"seed": seed} for row in found]
    return rows


def p2(folder: Path) -> list[Row]:
    metrics = ["recall@20", "ndcg@20"]
    tuning, joined = frontier.labelled(frontier.by_order(frontier.gowalla(folder)))
    base = {"solver": "cg", "epochs": 10}
    cosine = {"loss": "softmax", "similarity": "cosine", "negatives": "popularity", "n_negatives": 256,
              "learning_rate": 0.01, "reg": 0.0}  # fmt: skip
    families: dict[str, list[Recommender]] = {
        "popularity": [Popularity()],
        "item-kNN": grid(ItemKNN, {}, k=[50, 200]),
        "iALS, dim 64": grid(IALS, base | {"dim": 64}, alpha0=[0.01, 0.03, 0.1], reg=[0.001, 0.003]),
        "iALS, dim 256": grid(IALS, base | {"dim": 256}, alpha0=[0.01, 0.03], reg=[0.003, 0.005]),
        "MF, cosine, dim 64": grid(MF, cosine | {"dim": 64, "epochs": 40}, temperature=[0.1]),
        "sparse EASE": grid(SparseEASE, {}, reg=[10.0, 30.0, 100.0, 300.0], neighbours=[200]),
    }
    rows = []
    for label, models in families.items():
        model = best("p2", models, tuning, "ndcg@20")
        rows += tested("p2", label, model, joined, tuning.test, metrics, {HISTORY: None})
    degrees = base | {"degree_power": DEGREE_POWER}
    for dim in (128, 512, 1024):
        if dim < 1024:  # the widest takes what 512 columns chose
            models = grid(IALS, degrees | {"dim": dim}, alpha0=[0.02, 0.04, 0.08], reg=[0.003, 0.004])
            chosen = best("p2", models, tuning, "ndcg@20")
            pulled = best("p2", crowds(chosen), tuning, "ndcg@20")
        for words, model in (("by degree", chosen), ("by degree, to the crowd", pulled)):
            wide = clone(model).set_params(dim=dim)
            rows += tested("p2", f"iALS {words}, dim {dim}", wide, joined, tuning.test, metrics, {HISTORY: None})
    return rows


def p3(folder: Path) -> list[Row]:
    metrics = ["ndcg@10", "ndcg@20", "ndcg@100"]
    pairs = ml_1m(folder)
    numbers = {"train": TRAIN, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "test": TEST}
    tuning, joined = frontier.labelled(pairs.assign(label=pairs["split"].map(numbers)))
    base = {"solver": "cg", "epochs": 12}
    families: dict[str, list[Recommender]] = {
        "popularity": [Popularity()],
        "EASE": grid(EASE, {}, reg=[500.0, 700.0, 1000.0, 1400.0]),
        "iALS, dim 128": grid(IALS, base | {"dim": 128}, alpha0=[0.1, 0.3], reg=[0.003, 0.007]),
        "iALS, dim 512": grid(IALS, base | {"dim": 512}, alpha0=[0.3], reg=[0.005, 0.007, 0.01]),
    }
    degrees = base | {"dim": 512, "degree_power": DEGREE_POWER}
    chosen = best("p3", grid(IALS, degrees, alpha0=[0.3, 0.5, 0.7, 1.0], reg=[0.003, 0.005, 0.007]), tuning, "ndcg@10")
    families |= {"iALS by degree, dim 512": [chosen], "iALS by degree to the crowd, dim 512": crowds(chosen)}
    rows = []
    for label, models in families.items():
        model = best("p3", models, tuning, "ndcg@10")
        for fitted_on, train in (("train", tuning.train), ("train and validation", joined)):
            found = tested(f"p3 {fitted_on}", label, model, train, tuning.test, metrics, {HISTORY: None}, fold_in=True)
            rows += [row | {"fitted_on": fitted_on} for row in found]
    return rows


def p4(folder: Path, seeds: int) -> list[Row]:
    ratings = ml_1m(folder)
    ratings = ratings[ratings["rating"] != 3].sort_values(["user_id", "position"])
    ratings = ratings.assign(label=np.where(ratings["rating"] >= 4, 1.0, 0.0))
    last = ratings.groupby("user_id").cumcount(ascending=False) < 2
    train, held = ratings[~last], ratings[last]
    # The two actions before those choose the settings.
    earlier = train.groupby("user_id").cumcount(ascending=False) < 2
    first, chosen_on = train[~earlier], train[earlier]

    def auc(model: Recommender, known: pd.DataFrame, asked: pd.DataFrame) -> Row:
        fitted = model.fit(Interactions.from_frame(known, value="label"))
        asked = asked[asked["user_id"].isin(set(known["user_id"])) & asked["item_id"].isin(set(known["item_id"]))]
        score = fitted.score_pairs(asked["user_id"].to_numpy(), asked["item_id"].to_numpy())
        table = fitted.item_table_
        return {
            "auc": float(roc_auc_score(asked["label"], score)), "pairs": len(asked),
            "bytes_per_item": table.nbytes / table.shape[0],
        }  # fmt: skip

    def validated(model: Recommender) -> float:
        return float(kept(lambda: auc(clone(model), first, chosen_on), "p4", "validation", model)["auc"])

    rows = []
    tables = [(32, "fp32"), (32, "int8"), (32, "int4"), (8, "fp32"), (8, "int4"), (4, "int4"), (2, "int4")]
    for dim, value_type in tables:
        choices = grid(BiasedMF, {"dim": dim, "value_type": value_type}, reg=[0.01, 0.02, 0.03, 0.05])
        model = max(choices, key=validated)
        for seed in range(seeds):
            seeded = clone(model).set_params(random_state=seed)
            found = kept(partial(auc, clone(seeded), train, held), "p4", "test", seeded)
            row = {"label": f"biased MF, dim {dim}, {value_type}", "settings": seeded.get_params(), "seed": seed}
            rows.append(row | {"smaller": 4 * 32 / found["bytes_per_item"]} | found)
    return rows


def show(name: str, rows: list[Row]) -> None:
    print(f"\n{name}: {PUBLISHED[name]}\n")
    for row in rows:
        about = {key: row[key] for key in ("mask", "fitted_on", "seed", "smaller", "auc") if key in row}
        means = {metric: round(found["mean"], 4) for metric, found in row.get("metrics", {}).items()}
        print(f"{row['label']:28} {means} {about}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="+", choices=sorted(PUBLISHED))
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    folder = Path(os.environ["RECSPARSE_DATA"])
    for name in asked.sections:
        if name == "p1-ml-1m":
            tune = {"alpha0": [0.3, 0.5, 0.7, 1.0], "reg": [0.003, 0.005, 0.007, 0.015], "epochs": [10, 24]}
            rows = p1(name, ml_1m(folder), tune, [14, 24], asked.seeds, wide=256)
        elif name == "p1-gowalla":
            tune = {"alpha0": [0.003, 0.01, 0.03], "reg": [0.001, 0.003, 0.005]}
            rows = p1(name, frontier.gowalla(folder), tune, [14], asked.seeds, wide=512)
        elif name == "p2":
            rows = p2(folder)
        elif name == "p3":
            rows = p3(folder)
        else:
            rows = p4(folder, asked.seeds)
        found = {
            "section": name, "published": PUBLISHED[name], "machine": machine(), "versions": versions(),
            "command": f"python benchmarks/protocols.py {name} --seeds {asked.seeds}", "rows": rows,
        }  # fmt: skip
        (HERE / "results" / f"protocols-{name}.json").write_text(json.dumps(found) + "\n")
        show(name, rows)


if __name__ == "__main__":
    main()

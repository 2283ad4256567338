"""Bytes an item against quality: every recipe beside small dense tables of every value type and product quantisation.

    RECSPARSE_DATA=DIR python benchmarks/frontier.py ml-100k ml-1m gowalla --seeds 3

Every dense row is tuned on its own, on validation users. Sparse rows take the settings of the dense table of ``dim``
columns, wide ones those of the dense table as wide (of 512, what ``protocols.py p2`` chose on the same validation), so
that what they win is not won by tuning. On Gowalla, whose test users are those trained on, every row is then fitted to
all interactions but the test's, with the settings it had (see :func:`by_order` for what chooses them), and all have
``degree_power`` 1/4. Trainings and evaluations are kept below ``runs/frontier`` and not done again.
Writes ``benchmarks/results/frontier-DATASET.json`` and prints the table.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recsparse.config import RunConfig
from recsparse.evaluation import Evaluation, evaluate, paired
from recsparse.evaluation.pool import pool
from recsparse.interactions import Interactions, Ratings, Source, Split, build, read, split
from recsparse.interactions.protocols import TEST, TRAIN, VALIDATION
from recsparse.interactions.split import assemble
from recsparse.models import Recommender
from recsparse.pipeline.results import machine, versions
from recsparse.pipeline.rows import Training, make, trainings
from recsparse.pipeline.stages import Stage
from recsparse.pipeline.train import Fitted, train
from recsparse.tables import pack

HERE = Path(__file__).resolve().parent
METRICS = ["ndcg@20", "ndcg@100", "recall@20"]
INTEGERS = ["int8", "int4", "int3"]

GRADUAL = {"kind": "gradual", "start": 0.3, "end": 0.9}
ELEMENT = {"granularity": "element", "schedule": GRADUAL}
RECIPES: dict[str, dict[str, Any]] = {
    "global": ELEMENT,
    "best 40 %": ELEMENT | {"allocation": {"kind": "best-rows", "share": 0.4}},
    "best 45 %": ELEMENT | {"allocation": {"kind": "best-rows", "share": 0.45}},
    "rows": {"granularity": "row", "schedule": GRADUAL},
    "blocks": {"granularity": {"kind": "block", "columns": 4}, "schedule": GRADUAL},
    "dynamic": ELEMENT | {"schedule": "dynamic"},
    "oneshot": ELEMENT | {"schedule": "oneshot"},
    "soft-threshold": ELEMENT | {"schedule": "soft-threshold"},
    "tickets": ELEMENT | {"schedule": "tickets"},
    "loss-increase": ELEMENT | {"criterion": "loss-increase"},
    "popularity-groups": ELEMENT | {"allocation": "popularity-groups"},
    "uniform": ELEMENT | {"allocation": "uniform"},
    "sensitivity": ELEMENT | {"allocation": "sensitivity"},
}
COMPARED = ["dynamic", "oneshot", "soft-threshold", "tickets", "loss-increase", "popularity-groups", "uniform"]


class Sparse(NamedTuple):
    """Rows of one recipe: what an item keeps (entries, or for ``rows`` the share), and what is not as usual."""

    recipe: str
    kept: list[float]
    params: dict[str, Any] = {}
    dims: list[int] | None = None
    kind: str = "ials"


SHARES = [0.1, 0.2, 0.3, 0.5, 0.75]

DATASETS: dict[str, dict[str, Any]] = {
    "ml-100k": {
        "split": {"validation": 0.15, "test": 0.3}, "headline": "ndcg@100", "dim": 64,
        "tune": {"alpha0": [1.0, 2.0, 4.0], "reg": [0.005, 0.01]}, "dense": [2, 4, 8, 16, 32, 64, 128],
        "sparse": [
            Sparse("global", [1, 2, 4, 8, 16]), Sparse("best 40 %", [1, 2, 4, 8]),
            Sparse("rows", SHARES, dims=[16, 32, 64, 128]), Sparse("blocks", [2, 4, 8, 16]),
            *(Sparse(recipe, [2, 4, 8]) for recipe in COMPARED), Sparse("sensitivity", [4]),
            Sparse("global", [2, 4, 8], {"basis": 64}, kind="low-rank-ials"),
        ],
    },
    "ml-1m": {
        "split": {"validation": 400, "test": 1000}, "headline": "ndcg@100", "dim": 128,
        "tune": {"alpha0": [0.3, 1.0], "reg": [0.003, 0.007], "epochs": [8, 24]},
        "dense": [2, 4, 8, 16, 32, 64, 128],
        "sparse": [
            Sparse("global", [2, 4, 8, 16, 32]), Sparse("best 40 %", [2, 4, 8, 16]),
            Sparse("best 45 %", [6, 9, 13, 18, 24], {"epochs": 24}),
            Sparse("rows", SHARES, dims=[16, 32, 64, 128]), Sparse("blocks", [4, 8, 16, 32]),
            *(Sparse(recipe, [4, 8, 16]) for recipe in COMPARED), Sparse("sensitivity", [8]),
            Sparse("global", [4, 8, 16], {"basis": 128}, kind="low-rank-ials"),
        ],
    },
    "gowalla": {
        "split": None, "headline": "ndcg@20", "dim": 128, "base": {"degree_power": 0.25, "epochs": 10},
        "tune": {"alpha0": [0.003, 0.01, 0.03, 0.06], "reg": [0.002, 0.003, 0.005]},
        "dense": [2, 4, 8, 16, 32, 64, 128, 256],
        "sparse": [
            Sparse("best 40 %", [3, 6, 12], {"dim": 256}),
            Sparse("best 40 %", [12], {"dim": 512, "alpha0": 0.04, "reg": 0.004}),
            Sparse("global", [4, 8, 16, 32]), Sparse("best 40 %", [4, 8, 16]),
            Sparse("rows", [0.1, 0.3, 0.5], dims=[16, 32, 64]), Sparse("blocks", [8]),
            *(Sparse(recipe, [8]) for recipe in COMPARED),
            Sparse("global", [8], {"basis": 256}, kind="low-rank-ials"),
        ],
    },
}  # fmt: skip


def config_of(name: str, tuned: dict[int, dict[str, Any]] | None) -> RunConfig:
    """The rows: the dense ones, to be tuned; or the sparse ones, by the settings that dense ones of each dim got."""
    about = DATASETS[name]
    base = {"epochs": 8, "solver": "cg"} | about.get("base", {})
    models: list[dict[str, Any]] = [{
        "kind": "ials", "params": base, "sweep": {"dim": about["dense"]}, "tune": about["tune"],
        "value_types": ["fp32", "fp16", "int8", "int4", "int3", "int2"],
    }]  # fmt: skip
    if tuned is not None:
        models = [model_of(row, about["dim"], base, tuned) for row in about["sparse"]]
    return RunConfig.model_validate({
        "name": "frontier", "data": {"source": name}, "models": models,
        "evaluation": {"metrics": METRICS, "headline": about["headline"], "few_shot": []},
    })  # fmt: skip


def model_of(row: Sparse, dim: int, base: dict[str, Any], tuned: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """The model of some sparse rows: what a dense table of ``dim`` columns chose, or of as many as it has itself."""
    chosen = tuned[dim] | tuned.get(row.params.get("dim", dim), {})
    params = base | chosen | {"epochs": 14, "dim": dim} | row.params
    columns = row.params.get("basis", params["dim"])
    shares = row.kept if row.recipe == "rows" else [kept / columns for kept in row.kept]
    if row.kind != "ials":
        del params["solver"]
    return {
        "kind": row.kind, "params": params | {"recipe": RECIPES[row.recipe]}, "value_types": INTEGERS,
        "sweep": ({"dim": row.dims} if row.dims else {}) | {"recipe.density": shares},
    }  # fmt: skip


def split_of(name: str, seed: int, work: Path) -> tuple[Split, Interactions]:
    """The split of a seed, and what a table is fitted to once its settings are chosen.

    Gowalla's published split is the same for every seed.
    """
    if name == "gowalla":
        return labelled(by_order(gowalla(Path(os.environ["RECSPARSE_DATA"]))))
    if not (work / "data").exists():
        source: Source | str = name
        if name != "ml-100k":
            folder = Path(os.environ["RECSPARSE_DATA"]) / name
            source = Source(ratings=Ratings(path=str(folder / "ratings.parquet")))
        build(source, work / "data")
    parts = split(read(work / "data"), "strong", seed=seed, target=0.2, **DATASETS[name]["split"])
    return parts, parts.train


def gowalla(folder: Path) -> pd.DataFrame:
    """The published pairs in the published order, each labelled by its part."""
    parts = []
    for part, label in (("train", TRAIN), ("valid", VALIDATION), ("test", TEST)):
        lines = (line.split() for line in (folder / "gowalla" / f"{part}.txt").read_text().splitlines())
        pairs = [(int(user), int(item)) for user, *items in lines for item in items]
        parts.append(pd.DataFrame(pairs, columns=["user_id", "item_id"]).assign(label=label))
    return pd.concat(parts, ignore_index=True)


def by_order(pairs: pd.DataFrame) -> pd.DataFrame:
    """Label the last eighth of each user's training list as validation, and the published validation part as training.

    The published test is no random draw: it goes on where the lists end. A pair's item has 59 training users in their
    first tenth, rising to 74 in the last and 81 in the test, and 66 in the published validation part, which is drawn
    at random and prefers settings that spread over rarer items.
    """
    found = pairs.assign(label=pairs["label"].replace(VALIDATION, TRAIN))
    training = found[pairs["label"] == TRAIN].groupby("user_id")
    from_end, length = training.cumcount(ascending=False), training["item_id"].transform("size")
    found.loc[pairs["label"] == TRAIN, "label"] = np.where(from_end < np.maximum(length // 8, 1), VALIDATION, TRAIN)
    return found


def labelled(pairs: pd.DataFrame) -> tuple[Split, Interactions]:
    """The split by the column ``label``, and its training and validation interactions together."""
    whole = Interactions.from_frame(pairs, value="label")
    labels = whole.matrix.data.astype(np.int8)
    whole.matrix.data[:] = 1
    return assemble(whole, labels, {"protocol": "predefined"}), whole.select_entries(labels != TEST)


@dataclass(frozen=True)
class Row:
    """One table of one seed."""

    training: Training | None
    label: str
    family: str
    params: dict[str, Any]
    bytes_per_item: float
    evaluation: Evaluation


def measure(name: str, seed: int, work: Path) -> Iterator[Row]:
    """Every row of one seed."""
    parts, whole = split_of(name, seed, work)
    about = DATASETS[name]
    dense = config_of(name, None)
    found = [row for each in trainings(dense) for row in _rows(each, dense, parts, whole, work / f"seed-{seed}")]
    yield from found
    tuned = {row.params["dim"]: {key: row.params[key] for key in about["tune"]} for row in found}
    sparse = config_of(name, tuned)
    for training in trainings(sparse):
        yield from _rows(training, sparse, parts, whole, work / f"seed-{seed}")
    yield from product_quantised(work / f"seed-{seed}" / f"ials-{about['dim']}", parts, work / f"seed-{seed}")


def _rows(training: Training, config: RunConfig, parts: Split, whole: Interactions, where: Path) -> list[Row]:
    stages = {each: Stage(each, where / training.slug_of(each), "done") for each in training.value_types}
    if whole is parts.train:
        _choose(training, config, parts, stages)
        params = Fitted.read(next(iter(stages.values())).directory).params
    else:
        params = _refit(training, config, parts, whole, stages, where / "chosen" / training.slug_of("fp32"))
    rows = []
    for value_type, stage in stages.items():
        model, label = Recommender.load(stage.directory), training.label_of(value_type)
        table = model.item_table_
        rows.append(Row(
            training, label, training.family_of(value_type), params, table.nbytes / table.shape[0],
            _evaluated(model, parts, label, stage.directory / "test.parquet"),
        ))  # fmt: skip
    return rows


def _choose(training: Training, config: RunConfig, parts: Split, stages: dict[str, Stage]) -> None:
    """Fit to the training part, by the best settings where there is a choice; once."""
    if not all(stage.is_done() for stage in stages.values()):
        print(f"{next(iter(stages.values())).directory}: {training.label}", file=sys.stderr, flush=True)
        places = {each: stage.directory for each, stage in stages.items()}
        train(training, parts, config, places, lambda params: make(training.kind, params).fit(parts.train))
        for stage in stages.values():
            stage.finish(0.0)


def _refit(
    training: Training, config: RunConfig, parts: Split, whole: Interactions, stages: dict[str, Stage], chosen: Path
) -> dict[str, Any]:
    """Choose the settings as before, then fit by them to ``whole``; once."""
    params = training.params
    if len(training.candidates) > 1:
        _choose(replace(training, value_types=("fp32",)), config, parts, {"fp32": Stage("fp32", chosen, "done")})
        params = Fitted.read(chosen).params
    if not all(stage.is_done() for stage in stages.values()):
        print(f"{chosen.parent.parent}: {training.label}", file=sys.stderr, flush=True)
        model = make(training.kind, params).fit(whole)
        for value_type, stage in stages.items():
            model.repack(value_type).save(stage.directory, overwrite=True)
            stage.finish(0.0)
    return params


def _evaluated(model: Recommender, parts: Split, label: str, file: Path) -> Evaluation:
    if not file.exists():
        evaluate(model, parts.test, METRICS, name=label).save(file)
    return Evaluation.load(file)


def product_quantised(
    directory: Path, parts: Split, where: Path
) -> Iterator[tuple[str, str, dict[str, Any], Evaluation]]:
    """The largest dense table by product quantisation (faiss): codes and codebooks count."""
    import faiss  # noqa: PLC0415

    for codes in (2, 4, 8, 16, 32):
        model = Recommender.load(directory)
        values = model.item_table_.to_dense()
        items, dim = values.shape
        bits = 8 if items >= 256 * 39 else 6
        quantiser = faiss.ProductQuantizer(dim, codes, bits)
        quantiser.train(values)
        model.item_table_ = pack(quantiser.decode(quantiser.compute_codes(values)))
        size = codes * bits / 8 + 4 * dim * 2**bits / items
        label = f"PQ {codes}x{bits} bit"
        found = _evaluated(model, parts, label, where / f"{label.replace(' ', '-')}.parquet")
        yield Row(None, label, "other", {"codes": codes, "bits": bits}, size, found)


def summarise(name: str, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Pool the seeds and put each sparse row beside the best dense one, quantised or not, of no more bytes."""
    headline = DATASETS[name]["headline"]
    pooled = {label: pool(row["evaluations"]) for label, row in rows.items()}
    means = {label: each.summaries[headline].mean for label, each in pooled.items()}
    dense = [label for label, row in rows.items() if row["family"] in ("dense", "quantised")]
    table = []
    for label, row in sorted(rows.items(), key=lambda each: each[1]["bytes_per_item"]):
        entry = {
            "label": label, "family": row["family"], "bytes_per_item": row["bytes_per_item"], "params": row["params"],
            "metrics": {metric: pooled[label].summaries[metric].to_dict() for metric in METRICS},
        }  # fmt: skip
        smaller = [other for other in dense if rows[other]["bytes_per_item"] <= row["bytes_per_item"]]
        if label not in dense and smaller:
            rival = max(smaller, key=means.__getitem__)
            gap = paired(pooled[label], pooled[rival], [headline])[0]
            entry["rival"] = {"label": rival, **gap.to_dict()}
        table.append(entry)
    return {
        "dataset": name, "headline": headline, "seeds": len(next(iter(rows.values()))["evaluations"]),
        "machine": machine(), "versions": versions(), "command": f"python benchmarks/frontier.py {name}", "rows": table,
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    headline = found["headline"]
    print(f"\n{found['dataset']}, {found['seeds']} seed(s): {headline} with 95 % intervals\n")
    print(
        f"{'table':44} {'B/item':>7} {headline:>9} {'95 %':>13}  {'best dense no larger':24} {'difference, 95 %':>24}"
    )
    best = 0.0
    for row in found["rows"]:
        mean = row["metrics"][headline]["mean"]
        mark = "*" if mean > best else " "
        best = max(best, mean)
        rival = row.get("rival")
        gap = f"{rival['difference']:+.4f} [{rival['low']:+.4f}, {rival['high']:+.4f}]" if rival else ""
        interval = f"{row['metrics'][headline]['low']:.3f}-{row['metrics'][headline]['high']:.3f}"
        print(
            f"{mark}{row['label']:43} {row['bytes_per_item']:7.1f} {mean:9.4f} {interval:>13}  "
            f"{rival['label'] if rival else '':24} {gap:>24}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", choices=sorted(DATASETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/frontier"))
    asked = parser.parse_args()
    for name in asked.datasets:
        rows: dict[str, dict[str, Any]] = {}
        for seed in range(1 if name == "gowalla" else asked.seeds):
            for found in measure(name, seed, asked.runs / name):
                row = rows.setdefault(
                    found.label, {"family": found.family, "params": found.params, "sizes": [], "evaluations": []}
                )
                row["sizes"].append(found.bytes_per_item)
                row["evaluations"].append(found.evaluation)
        rows = {label: row | {"bytes_per_item": float(np.mean(row["sizes"]))} for label, row in rows.items()}
        summary = summarise(name, rows)
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / f"frontier-{name}.json").write_text(json.dumps(summary) + "\n")
        show(summary)


if __name__ == "__main__":
    main()

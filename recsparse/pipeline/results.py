"""From saved models and evaluations to the results document."""

import json
import platform
from importlib import metadata
from typing import Any

import numpy as np

from recsparse.evaluation import Evaluation
from recsparse.interactions import Interactions, Split
from recsparse.interactions.cards import Card
from recsparse.models import Recommender
from recsparse.models.factors import ITEM_TABLE, FactorModel
from recsparse.parallel import resolve_jobs
from recsparse.pipeline.measure import RowEvaluations
from recsparse.pipeline.plan import Entry
from recsparse.pipeline.train import Fitted
from recsparse.report.results import Cost, Dataset, FewShotPoint, Measured, Row, SplitInfo, WarmUpPoint
from recsparse.tables import FactoredTable

VERSIONS = ("recsparse", "torch", "numpy", "scipy", "numba", "duckdb", "pyarrow")


def row_of(entry: Entry, measured: RowEvaluations) -> Row:
    """Describe one saved model: what it weighs on disk, and what its packed table achieved."""
    training, value_type, directory = entry.training, entry.value_type, entry.model.directory
    fitted = Fitted.read(directory)
    row: dict[str, Any] = {}
    model = Recommender.load(directory)
    if isinstance(model, FactorModel):
        table = model.item_table_
        rows, dim = table.shape
        stored = table.sparse if isinstance(table, FactoredTable) else table
        kept = int(np.count_nonzero(stored.to_dense()[stored.row_counts() > 0]))  # not the fallback's
        row = {
            "layout": table.layout,
            "dim": dim,
            "density": kept / (rows * stored.shape[1]),
            "nonzeros_per_item": kept / rows,
            "bytes_total": table.nbytes,
            "bytes_per_item": table.nbytes / rows,
            "breakdown": table.breakdown(),
        }
    file = directory / ITEM_TABLE
    return Row(
        label=entry.label,
        family=training.family_of(value_type),
        model=training.kind,
        params=fitted.params,
        value_type=value_type,
        metrics=_measured(measured.test),
        validation={name: Measured.model_validate(value) for name, value in fitted.validation.items()},
        few_shot=[
            FewShotPoint(
                history=k, metrics=_measured(each), fold_in=_measured(measured.fold_in[k]) if measured.fold_in else {}
            )
            for k, each in measured.few_shot.items()
        ],
        cold_items={} if measured.cold_items is None else _measured(measured.cold_items),
        warm_up=[WarmUpPoint(gathered=n, metrics=_measured(each)) for n, each in measured.warm_up.items()],
        cost=Cost(
            fit_seconds=fitted.fit_seconds,
            peak_memory_bytes=fitted.peak_memory_bytes,
            convert_seconds=fitted.convert_seconds if file.exists() else None,
            file_bytes=file.stat().st_size if file.exists() else None,
        ),
        **row,
    )


def dataset_of(name: str, card: Card | None, interactions: Interactions) -> Dataset:
    """Describe what was trained on."""
    users, items = interactions.shape
    about = {} if card is None else {"title": card.title, "citation": card.citation, "licence": card.licence}
    return Dataset(name=name, users=users, items=items, interactions=interactions.nnz, **about)


def split_of(split: Split, digest: str) -> SplitInfo:
    """Describe how training, validation and test were made."""
    protocol, options = split.about["protocol"], split.about["options"]
    test = split.test
    known = test.history.nnz / max(1, test.history.shape[0])
    asked = test.target.nnz / max(1, test.target.shape[0])
    unseen = split.report["test"]["users_unseen"]
    who = "users never seen in training" if unseen == test.target.shape[0] else f"users ({unseen} of them new)"
    return SplitInfo(
        protocol=protocol,
        description=(
            f"{test.target.shape[0]:,} {who} are given by {known:.1f} interactions each on average; "
            f"{asked:.1f} held-out ones are to be found among all other items."
        ),
        train_users=split.train.shape[0],
        validation_users=split.validation.target.shape[0],
        test_users=test.target.shape[0],
        seed=split.about["seed"],
        digest=digest,
        warnings=_warnings(split, options),
    )


def versions() -> dict[str, str]:
    """What the figures were made with."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in VERSIONS}


def machine() -> str:
    """The machine in a few words."""
    return f"{platform.system()} {platform.machine()}, {resolve_jobs(None)} cores"


def _measured(evaluation: Evaluation) -> dict[str, Measured]:
    return {metric: Measured.of(summary) for metric, summary in evaluation.summaries.items()}


def _warnings(split: Split, options: dict[str, object]) -> list[str]:
    test = split.report["test"]
    found = []
    if test["target_unseen"]:
        found.append(
            f"{test['target_unseen']} of {test['target']} test interactions are with items that training never saw; "
            "no model without features can find them."
        )
    if test["repeated_pairs"]:
        found.append(f"{test['repeated_pairs']} test interactions are also in training or history.")
    if test.get("train_from_future"):
        found.append(
            f"{test['train_from_future']} training interactions are later than the first test interaction "
            f"(protocol {split.about['protocol']} with {json.dumps(options)}), so this is no forecast."
        )
    return found

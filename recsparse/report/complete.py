"""From a run's rows with their accuracy to the effect report: groups, beyond accuracy, costs, pruned ids, claims."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsparse.evaluation.evaluate import Evaluation
from recsparse.evaluation.fallbacks import Compared, evaluate_fallbacks, evaluate_pruned_users, pruned_rows
from recsparse.interactions.interactions import ITEM
from recsparse.interactions.split import Split
from recsparse.models.base import Recommender
from recsparse.models.factors import FactorModel
from recsparse.report.choice import DENSE, bytes_of, choose, good_enough
from recsparse.report.claims import claims_from_results
from recsparse.report.costs import measure_costs
from recsparse.report.effects import DenseReference, effects
from recsparse.report.experiments import Pair, claims_from_experiments
from recsparse.report.kept import NOTHING, Kept
from recsparse.report.results import Cost, Measured, Results, Row
from recsparse.report.words import slug
from recsparse.tables import PackedTable


def complete(
    results: Results,
    load: Callable[[str], Recommender],
    evaluations: Mapping[str, Evaluation],
    split: Split,
    *,
    file_of: Callable[[str], Path] | None = None,
    noise: Sequence[float] = (),
    seeds: Sequence[int] = (0, 1, 2),
    k: int = 20,
    kept: Kept = NOTHING,
) -> Results:
    """Measure for every row what its mean accuracy does not say, and decide the claims.

    Args:
        results: with rows, their metrics and comparisons.
        load: label -> the fitted model; it is called once a row and may read it from a file.
        evaluations: label -> evaluation on the test users.
        split: what all models were fitted and measured on.
        file_of: label -> the saved item table, for costs; without it latencies and conversion are left out.
        noise: shares of noise for the robustness experiment; without any, no experiment is made. Each costs
            ``2 x len(seeds)`` fits.
        seeds: of the noise.
        k: length of the lists described.
        kept: where what the figures were computed from goes: a directory a row, named by
            :func:`recsparse.report.words.slug`, and one for the claims.

    Returns:
        New results; what was measured already (fit seconds, memory) is kept.
    """
    choice = choose(results)
    shown, dense = (choice.row.label, choice.reference.label), load(choice.reference.label)
    reference = dense if isinstance(dense, FactorModel) and choice.reference.family in DENSE else None
    beside = None if reference is None else DenseReference.of(reference, split.test, k)
    rows = []
    for row in results.rows:
        model, own = load(row.label), kept.below(slug(row.label))
        found: dict[str, Any] = effects(model, split.test, evaluations[row.label], dense=beside, k=k, kept=own)
        found["cold_items"] = row.cold_items or found["item_groups"].get("unseen", {})
        if isinstance(model, FactorModel) and row.bytes_total:
            found["pruned_items"] = _pruned_items(model, split, results.headline, own)
            if row.label in shown:
                users = evaluate_pruned_users(model, split.test, [results.headline])
                found["pruned_users"] = _by_fallback(users, own.below("pruned-users"))
            if file_of is not None:
                measured = measure_costs(model, file_of(row.label), split.test.history, k=k, kept=own)
                found["cost"] = _merged(row.cost, measured)
        rows.append(row.model_copy(update=found))
    results = results.model_copy(update={"rows": rows})
    claims = claims_from_results(results)
    sparse = _sparse_row(results)
    if noise and sparse is not None and reference is not None:
        model = load(sparse.label)
        if isinstance(model, FactorModel):
            pair = Pair(model, reference, split, results.headline)
            tried = claims_from_experiments(pair, noise=noise, seeds=seeds, kept=kept.below("claims"))
            who = f"{sparse.label} (sparse) against {choice.reference.label} (dense)."
            claims += [one.model_copy(update={"experiment": f"{who} {one.experiment}"}) for one in tried]
            kept.below("claims").columns("pair", {"sparse": [sparse.label], "dense": [choice.reference.label]})
    return results.model_copy(update={"claims": claims})


def _sparse_row(results: Results) -> Row | None:
    """The sparse table to experiment with: the smallest that is good enough, or else the best."""
    good = [row for row in good_enough(results) if row.family not in DENSE]
    if good:
        return min(good, key=bytes_of)
    sparse = [row for row in results.rows if row.bytes_total and row.family not in DENSE]
    return max(sparse, key=lambda row: (row.validation or row.metrics)[results.headline].mean, default=None)


def _pruned_items(model: FactorModel, split: Split, metric: str, kept: Kept) -> dict[str, dict[str, Measured]]:
    table = model.item_table_
    pruned = pruned_rows(table) if isinstance(table, PackedTable) else np.zeros(table.shape[0], dtype=np.bool_)
    if pruned.all() or not pruned.any():
        return {}
    kept.columns("pruned-items", {ITEM: np.asarray(model.items_[ITEM].to_pylist())[pruned]})
    return _by_fallback(evaluate_fallbacks(model, split.test, metrics=[metric]), kept.below("pruned-items"))


def _by_fallback(found: Compared, kept: Kept) -> dict[str, dict[str, Measured]]:
    for fallback, (evaluation, _) in found.items():
        kept.evaluation(fallback, evaluation)
    return {
        fallback: {name: Measured.of(summary) for name, summary in groups["pruned"].items()}
        for fallback, (_, groups) in found.items()
        if "pruned" in groups
    }


def _merged(known: Cost, measured: Cost) -> Cost:
    return measured.model_copy(update=known.model_dump(exclude_none=True, exclude={"lookup", "top_k"}))

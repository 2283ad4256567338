"""What those get whose rows were pruned: kept and pruned items apart, under each fallback."""

from collections.abc import Sequence
from copy import copy

import numpy as np
import numpy.typing as npt

from recsparse.errors import DataError
from recsparse.evaluation.evaluate import Evaluation, evaluate
from recsparse.evaluation.groups import by_item_group
from recsparse.evaluation.intervals import Summary
from recsparse.interactions.split import Holdout
from recsparse.models.factors import FactorModel
from recsparse.tables import PackedTable, pack
from recsparse.tables.fallback import Fallback

KEPT_GROUPS = ("kept", "pruned")


def pruned_rows(table: PackedTable) -> npt.NDArray[np.bool_]:
    """The rows without any stored entry, (R,)."""
    return np.asarray(table.row_counts() == 0)


def evaluate_fallbacks(
    model: FactorModel,
    holdout: Holdout,
    fallbacks: Sequence[str | Fallback] = ("zero", "mean"),
    metrics: Sequence[str] = ("ndcg@20", "recall@20"),
) -> dict[str, tuple[Evaluation, dict[str, dict[str, Summary]]]]:
    """Serve the same row-pruned table with each fallback.

    Args:
        model: fitted, with a table some of whose rows were pruned.
        holdout: histories and targets.
        fallbacks: what pruned ids return, see :func:`recsparse.tables.pack`.
        metrics: see :mod:`recsparse.evaluation.metrics`.

    Returns:
        Fallback -> the evaluation, and each metric by targets whose rows were kept and pruned.

    Raises:
        DataError: no row was pruned.
    """
    table = model.item_table_
    if not isinstance(table, PackedTable) or not pruned_rows(table).any():
        raise DataError("No row of the item table was pruned, so no fallback is ever used.")
    pruned = pruned_rows(table)
    values = table.to_dense()
    mask = np.broadcast_to(~pruned[:, None], values.shape) & (values != 0)
    found = {}
    for fallback in fallbacks:
        served = copy(model)
        served.item_table_ = pack(values, mask, value_type=table.value_type, remap=True, fallback=fallback,
                                  layout="rows" if table.layout == "rows" else "csr")  # fmt: skip
        label = fallback if isinstance(fallback, str) else fallback.kind
        evaluation = evaluate(served, holdout, metrics, name=f"fallback {label}")
        found[label] = (evaluation, by_item_group(evaluation, model.items_, pruned.astype(np.int8), KEPT_GROUPS))
    return found

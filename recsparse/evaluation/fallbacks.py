"""What those get whose rows were pruned: kept and pruned items, and users, apart, under each fallback."""

from collections.abc import Mapping, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.evaluation.evaluate import Evaluation, evaluate
from recsparse.evaluation.groups import by_item_group, by_user_group, popularity_groups
from recsparse.evaluation.intervals import Summary
from recsparse.interactions.interactions import USER, Interactions
from recsparse.interactions.split import Holdout
from recsparse.models.factors import FactorModel
from recsparse.models.feature_ials import FeatureIALS
from recsparse.models.features import Encoding
from recsparse.models.ials import IALS
from recsparse.tables import PackedTable, pack
from recsparse.tables.fallback import Fallback, Features, GroupMean, HashBucket

Vectors = npt.NDArray[np.float32]

KEPT_GROUPS = ("kept", "pruned")


def pruned_rows(table: PackedTable) -> npt.NDArray[np.bool_]:
    """The rows without any stored entry, (R,)."""
    return np.asarray(table.row_counts() == 0)


Compared = dict[str, tuple[Evaluation, dict[str, dict[str, Summary]]]]
"""Fallback -> the evaluation, and each metric by those whose rows were kept and pruned."""


def fallbacks_of(
    values: Vectors, stored: npt.NDArray[np.bool_], groups: npt.NDArray[np.integer], rows: pa.Table,
    *, lost: Vectors | None = None, buckets: int = 16,
) -> dict[str, str | Fallback]:  # fmt: skip
    """Every fallback that can be had of a table whose rows are ``stored`` or pruned.

    Args:
        values: (R, D), the stored rows.
        stored: (R,).
        groups: (R,), from 0, popular first.
        rows: users or items; where they have features, these answer too, by ridge regression on the stored rows.
        lost: (R, D) with the pruned rows as they were; buckets of a hash share their means. Without it there is none.
        buckets: of the hash.
    """
    found: dict[str, str | Fallback] = {
        "zero": "zero", "mean": "mean", "group-mean": GroupMean.fit(values, groups, stored)
    }  # fmt: skip
    if lost is not None:
        found["hash"] = HashBucket.fit(lost, stored, buckets)
    encoding = Encoding.of(rows)
    if encoding.columns:
        constant = sp.csr_array(np.ones((rows.num_rows, 1), dtype=np.float32))
        found["features"] = Features.fit(values, sp.hstack([constant, encoding.encode(rows)]), stored)
    return found


def evaluate_fallbacks(
    model: FactorModel,
    holdout: Holdout,
    fallbacks: Mapping[str, str | Fallback] | None = None,
    metrics: Sequence[str] = ("ndcg@20", "recall@20"),
) -> Compared:
    """Serve the same row-pruned table with each fallback.

    Args:
        model: fitted, with a table some of whose rows were pruned.
        holdout: histories and targets.
        fallbacks: name -> what pruned ids return, see :func:`recsparse.tables.pack`; by default those of
            :func:`fallbacks_of` by popularity group and item features, and, of iALS, whose pruned rows can be solved
            again, by hash bucket.
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
    if fallbacks is None:
        lost = _solved(model, values, pruned) if isinstance(model, IALS) else None
        fallbacks = fallbacks_of(values, ~pruned, popularity_groups(model.popularity_), model.items_, lost=lost)
    found = {}
    for label, fallback in fallbacks.items():
        served = copy(model)
        served.item_table_ = pack(values, mask, value_type=table.value_type, remap=True, fallback=fallback,
                                  layout="rows" if table.layout == "rows" else "csr")  # fmt: skip
        evaluation = evaluate(served, holdout, metrics, name=f"fallback {label}")
        found[label] = (evaluation, by_item_group(evaluation, model.items_, pruned.astype(np.int8), KEPT_GROUPS))
    return found


def evaluate_pruned_users(
    model: FactorModel, holdout: Holdout, metrics: Sequence[str] = ("ndcg@20",), *, share: float = 0.5
) -> Compared:
    """Serve the holdout's users from a table of their vectors from which those with the shortest histories went.

    Args:
        model: fitted.
        holdout: histories and targets.
        metrics: see :mod:`recsparse.evaluation.metrics`.
        share: of the users whose rows go.

    Returns:
        Of ``own`` (nobody's went), each fallback of :func:`fallbacks_of` (groups are thirds by length of history), and
        ``popularity`` (as for unknown users): the evaluation, and each metric by users kept and pruned.
    """
    values = np.asarray(model.queries(holdout.history), dtype=np.float32)
    lengths = np.diff(holdout.history.matrix.indptr)
    pruned = np.zeros(len(lengths), dtype=np.bool_)
    pruned[np.argsort(lengths, kind="stable")[: int(share * len(lengths))]] = True
    thirds = 2 - np.searchsorted(np.quantile(lengths, [1 / 3, 2 / 3]), lengths, side="left")
    kept = np.where(pruned[:, None], 0, values).astype(np.float32)
    every: dict[str, str | Fallback | None] = {"own": None, "popularity": None}
    every |= fallbacks_of(kept, ~pruned, thirds, holdout.history.users, lost=values)
    found = {}
    for label, fallback in every.items():
        vectors = values
        if fallback is not None:
            table = pack(kept, np.broadcast_to(~pruned[:, None], kept.shape), layout="rows", fallback=fallback)
            vectors = table.lookup(np.arange(len(kept)))
        unknown = pruned if label == "popularity" else np.zeros_like(pruned)
        served = _FromUserTable(model, holdout, vectors, unknown)
        evaluation = evaluate(served, holdout, metrics, name=f"fallback {label}")
        found[label] = (evaluation, by_user_group(evaluation, pruned.astype(np.int8), KEPT_GROUPS))
    return found


class _FromUserTable(FactorModel):
    """A model whose users are looked up."""

    def __init__(
        self, model: FactorModel, holdout: Holdout, vectors: Vectors, unknown_users: npt.NDArray[np.bool_]
    ) -> None:
        self.holdout, self.vectors, self.unknown_users = holdout, vectors, unknown_users
        self.items_, self.users_, self.history_ = model.items_, model.users_, model.history_
        self.popularity_, self.item_table_ = model.popularity_, model.item_table_

    def _fit(self, interactions: Interactions) -> None:
        pass

    def _fold_in(self, histories: sp.csr_array) -> Vectors:
        return self.vectors

    def queries(self, interactions: Interactions) -> Vectors:
        return self.vectors[self.holdout.history.user_rows(interactions.user_ids)]

    def unknown(self, histories: sp.csr_array, users: pa.Table | None = None) -> npt.NDArray[np.bool_]:
        assert users is not None  # noqa: S101 (evaluation passes them)
        return self.unknown_users[self.holdout.history.user_rows(users[USER].to_pylist())]


def _solved(model: IALS, values: Vectors, pruned: npt.NDArray[np.bool_]) -> Vectors:
    """The item vectors with the pruned rows as one half-step of the model's training gives them."""
    data = Interactions(model.history_, model.users_, model.items_)
    sides, users, rows = model._sides(data), np.asarray(model.queries(data)), np.flatnonzero(pruned)
    prior = model.predict_items(model.items_.take(pa.array(rows))) if isinstance(model, FeatureIALS) else None
    whole = values.copy()
    whole[rows] = sides.loss.solve(sp.csr_array(sides.by_item[rows]), users, sides.shared_of_users(users), prior)
    return whole

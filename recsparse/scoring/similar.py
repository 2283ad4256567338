"""Items like an item, users like a user: cosines of their vectors, by the kernels that make recommendations."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from recsparse.errors import ConfigError, DataError
from recsparse.interactions.interactions import ITEM, USER, Interactions, Rows
from recsparse.kernels.products import top_products
from recsparse.kernels.topk import NO_ITEM
from recsparse.models.base import Recommender, Scores
from recsparse.models.factors import FactorModel

Vectors = Callable[[Rows], Scores]
"""Rows to their vectors, (B, D) float32."""


def similar_items(model: Recommender, items: Sequence[Any] | None = None, k: int = 10) -> pa.Table:
    """The ``k`` items with the greatest cosine to each item, itself left out.

    cos(v, w) = v · w / (|v| |w|), of the packed table's vectors; an item without a vector (a pruned row) is like none.

    Args:
        model: a fitted factor model (iALS, MF).
        items: original ids; all by default.
        k: how many.

    Returns:
        item_id, similar_id, rank (int32, from 1) and score (float32).

    Raises:
        ConfigError: the model has no vectors.
        DataError: an id is unknown.

    Example:
        >>> import scipy.sparse as sp
        >>> from recsparse.models import IALS
        >>> model = IALS(2).fit(sp.csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]))
        >>> similar_items(model, [0, 3], k=1)["similar_id"].to_pylist()
        [1, 2]
    """
    table = _factors(model).item_table_
    catalogue = Interactions(model.history_, model.users_, model.items_)
    rows = _rows(items, catalogue.item_rows, len(table), "item")
    return _similar(rows, table.lookup, len(table), k, catalogue.items[ITEM], "item_id")


def similar_users(model: Recommender, users: Sequence[Any] | None = None, k: int = 10) -> pa.Table:
    """The ``k`` training users with the greatest cosine to each training user, itself left out.

    Returns:
        user_id, similar_id, rank and score, as of :func:`similar_items`; nothing for a user without a history.
    """
    model = _factors(model)
    trained = Interactions(model.history_, model.users_, model.items_)
    n_users = trained.shape[0]
    rows = _rows(users, trained.user_rows, n_users, "user")
    step = 1 << 14
    vectors = np.concatenate([
        np.asarray(model.queries(trained.select_users(range(start, min(start + step, n_users)))), dtype=np.float32)
        for start in range(0, n_users, step)
    ])  # fmt: skip
    vectors[np.diff(trained.matrix.indptr) == 0] = 0
    return _similar(rows, vectors.__getitem__, n_users, k, trained.users[USER], "user_id")


def _factors(model: Recommender) -> FactorModel:
    if not isinstance(model, FactorModel):
        raise ConfigError(f"A {model.kind!r} model has no vectors to compare; use a factor model such as iALS.")
    return model


def _rows(ids: Sequence[Any] | None, rows_of: Callable[[Any], Rows], n: int, name: str) -> Rows:
    if ids is None:
        return np.arange(n)
    rows = rows_of(ids)
    if (rows < 0).any():
        raise DataError(f"The {name} {ids[int(np.argmax(rows < 0))]!r} is not known to the model.")
    return rows


def _similar(rows: Rows, vectors: Vectors, n: int, k: int, ids: pa.ChunkedArray, name: str) -> pa.Table:
    if k < 1:
        raise ConfigError(f"k is {k}; it must be at least 1.")

    def unit(some: Rows) -> Scores:
        found = vectors(some)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        scaled: Scores = np.divide(found, lengths, out=np.zeros_like(found), where=lengths > 0)
        return scaled

    k = min(k, n)
    itself = np.arange(len(rows) + 1, dtype=np.int64)
    queries = unit(rows)
    similar, scores = top_products(queries, lambda start, stop: unit(np.arange(start, stop)), n, k, itself, rows)
    line = (similar != NO_ITEM) & (np.abs(queries).max(axis=1, initial=0) > 0)[:, None]
    return pa.table({
        name: ids.take(pa.array(np.repeat(rows, line.sum(axis=1)))),
        "similar_id": ids.take(pa.array(similar[line])),
        "rank": (np.nonzero(line)[1] + 1).astype(np.int32),
        "score": scores[line],
    })  # fmt: skip

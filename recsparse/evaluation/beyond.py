"""What accuracy does not see: how much of the catalogue is shown, how popular, how varied, how like the dense lists.

Lists are (U, k) item rows, best first, -1 where a list is shorter; ``x_i`` is how often item ``i`` stands in one.
Functions of single lists give a value a user, NaN where the list is too short for it; those of all lists give a number.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.evaluation.metrics import PerUser

Lists = npt.NDArray[np.int32]


def exposure(lists: Lists, n_items: int) -> npt.NDArray[np.int64]:
    """How often each item of the catalogue is recommended, ``x`` (I,)."""
    return np.bincount(lists[lists >= 0], minlength=n_items)


def coverage(lists: Lists, n_items: int) -> float:
    """Share of the catalogue recommended to anybody: ``|{i : x_i > 0}| / I``."""
    return float((exposure(lists, n_items) > 0).mean())


def gini(lists: Lists, n_items: int) -> float:
    """Inequality of exposure over the whole catalogue, 0 (equal) to nearly 1 (one item has it all).

    ``sum over i of (2 i - I - 1) x_(i) / (I sum x)`` with ``x`` ascending and ``i`` from 1.

    >>> gini(np.array([[0], [1]], dtype=np.int32), 2), gini(np.array([[0], [0]], dtype=np.int32), 2)
    (0.0, 0.5)
    """
    ascending = np.sort(exposure(lists, n_items)).astype(np.float64)
    weights = 2.0 * np.arange(1, n_items + 1) - n_items - 1
    return float(weights @ ascending / (n_items * ascending.sum()))


def exposure_entropy(lists: Lists, n_items: int) -> float:
    """Shannon entropy of exposure over its greatest value: ``-sum p_i log p_i / log I`` with ``p = x / sum x``."""
    share = exposure(lists, n_items) / (lists >= 0).sum()
    share = share[share > 0]
    return float(-(share * np.log(share)).sum() / np.log(n_items))


def novelty(lists: Lists, popularity: npt.NDArray[Any], n_users: int) -> PerUser:
    """Mean self-information of a list, bits: ``-log2((n_i + 1) / (U + 1))``, ``n_i`` the training users of item ``i``.

    The ones added keep an item that nobody had finite (Vargas and Castells 2011, eq. 5, without them).
    """
    return _mean_over_lists(lists, -np.log2((np.asarray(popularity, dtype=np.float64) + 1.0) / (n_users + 1.0)))


def popularity_lift(lists: Lists, popularity: npt.NDArray[Any], history: sp.csr_array) -> PerUser:
    """By how much a list is more popular than the user's own history: the quotient of their mean popularities less 1.

    0 is calibrated, 1 twice as popular (Abdollahpouri et al. 2020, for one user). NaN without a history.
    """
    sizes = np.diff(history.indptr)
    users = np.repeat(np.arange(len(sizes)), sizes)
    own = np.bincount(users, weights=popularity[history.indices], minlength=len(sizes))
    with np.errstate(invalid="ignore", divide="ignore"):
        lift: PerUser = _mean_over_lists(lists, popularity) / (own / sizes) - 1.0
    return lift


def calibration_error(lists: Lists, features: sp.csr_array, history: sp.csr_array, *, alpha: float = 0.01) -> PerUser:
    """Divergence of a list's features from those of the user's history, nats; 0 is calibrated.

    ``sum over f of p_f log(p_f / ((1 - alpha) q_f + alpha p_f))`` (Steck 2018, eqs. 2, 3 and 6), where ``p`` and ``q``
    are the mean feature shares of history and list, an item's features sharing one unit. NaN where either has none.
    """
    shares = _rows_divided(features, _row_sums(features))
    p, q = _normalised(_pattern(history) @ shares), _normalised(_lists_matrix(lists, features.shape[0]) @ shares)
    with np.errstate(invalid="ignore", divide="ignore"):
        terms = np.where(p > 0, p * np.log(p / ((1.0 - alpha) * q + alpha * p)), 0.0)
    divergence: PerUser = np.where(np.isnan(p).any(axis=1) | np.isnan(q).any(axis=1), np.nan, terms.sum(axis=1))
    return divergence


def intra_list_distance(lists: Lists, vectors: npt.NDArray[np.float32] | sp.csr_array) -> PerUser:
    """Mean cosine distance of two different items of a list: ``1 - (|sum v|^2 - n) / (n (n - 1))``, ``v`` unit vectors.

    Vectors are features or embeddings, (I, D); items without any (zero) are left out. NaN with fewer than two.
    Cost: one sum a list, not one a pair.
    """
    if isinstance(vectors, np.ndarray):
        lengths = np.linalg.norm(vectors, axis=1).astype(np.float64)
        unit: Any = vectors / np.where(lengths > 0, lengths, 1.0)[:, None]
    else:
        lengths = np.sqrt(_row_sums(vectors.multiply(vectors)))
        unit = _rows_divided(vectors, lengths)
    members = _lists_matrix(lists, len(lengths))
    n = members @ (lengths > 0).astype(np.float64)
    total = members @ unit
    total = total.toarray() if sp.issparse(total) else np.asarray(total)
    with np.errstate(invalid="ignore", divide="ignore"):
        similarity = ((total.astype(np.float64) ** 2).sum(axis=1) - n) / (n * (n - 1.0))
    return np.where(n >= 2, 1.0 - similarity, np.nan)


def overlap(lists: Lists, others: Lists) -> PerUser:
    """Share of a list that another model's list of the same user has too: ``|A and B| / k``."""
    shared: PerUser = _agreement(lists, others)[:, -1] / lists.shape[1]
    return shared


def rank_biased_overlap(lists: Lists, others: Lists, *, p: float = 0.9) -> PerUser:
    """Agreement of two rankings with the top weighing most, 0 (disjoint) to 1 (the same list).

    ``X_k / k p^k + (1 - p) / p sum over d <= k of X_d / d p^d``, ``X_d`` the overlap of the first ``d``: RBO
    extrapolated from depth ``k`` (Webber, Moffat and Zobel 2010, eq. 30).
    """
    if not 0.0 < p < 1.0:
        raise DataError(f"p is {p}; it must be between 0 and 1.")
    depth = np.arange(1, lists.shape[1] + 1)
    shares = _agreement(lists, others) / depth
    found: PerUser = shares[:, -1] * p ** depth[-1] + (1.0 - p) / p * (shares @ p**depth)
    return found


def _agreement(lists: Lists, others: Lists) -> npt.NDArray[np.int64]:
    """``X_d``, (U, k): how many items the first ``d`` of both lists share."""
    if lists.shape != others.shape:
        raise DataError(
            f"The lists have shapes {lists.shape} and {others.shape}; compare lists of equal users and length."
        )
    found = np.zeros(lists.shape, dtype=np.int64)
    for start in range(0, len(lists), 1024):
        block = lists[start : start + 1024]
        same = (block[:, :, None] == others[start : start + 1024, None, :]) & (block >= 0)[:, :, None]
        users, here, there = np.nonzero(same)
        np.add.at(found, (start + users, np.maximum(here, there)), 1)  # shared from the deeper of both places on
    return found.cumsum(axis=1)


def _mean_over_lists(lists: Lists, values: npt.NDArray[Any]) -> PerUser:
    there = lists >= 0
    with np.errstate(invalid="ignore"):
        total = np.where(there, values[np.maximum(lists, 0)], 0.0).sum(axis=1, dtype=np.float64)
        mean: PerUser = total / there.sum(axis=1)
    return mean


def _lists_matrix(lists: Lists, n_items: int) -> sp.csr_array:
    there = lists >= 0
    indptr = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    return sp.csr_array((np.ones(indptr[-1]), lists[there], indptr), shape=(len(lists), n_items))


def _pattern(matrix: sp.csr_array) -> sp.csr_array:
    return sp.csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)


def _row_sums(matrix: sp.csr_array) -> PerUser:
    return np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel()


def _rows_divided(matrix: sp.csr_array, by: PerUser) -> sp.csr_array:
    return sp.csr_array(sp.diags_array(1.0 / np.where(by > 0, by, 1.0)) @ matrix)


def _normalised(matrix: sp.csr_array) -> npt.NDArray[np.float64]:
    dense = matrix.toarray()
    with np.errstate(invalid="ignore", divide="ignore"):
        shares: npt.NDArray[np.float64] = dense / dense.sum(axis=1, keepdims=True)
    return shares

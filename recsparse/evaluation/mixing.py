"""Interactions put together: noise added, another's merged in."""

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from recsparse.errors import ConfigError
from recsparse.interactions.interactions import USER, Interactions


def add_noise(train: Interactions, share: float, *, seed: int = 0) -> Interactions:
    """Add ``share`` times as many random interactions as there are: pairs nobody has, each equally likely.

    Their values (and times) are drawn from those there are, so that only the pairs are wrong.

    Example:
        >>> train = Interactions.from_csr(np.eye(10))
        >>> add_noise(train, 0.4).nnz
        14
    """
    if not share >= 0.0:  # NaN included
        raise ConfigError(f"The share of noise is {share}; it must not be negative.")
    n_users, n_items = train.shape
    wanted = round(share * train.nnz)
    if wanted > n_users * n_items - train.nnz:
        raise ConfigError(f"A noise of {share:.0%} asks for {wanted} free pairs; there are fewer.")
    rng = np.random.default_rng(seed)
    taken = np.repeat(np.arange(n_users) * n_items, np.diff(train.matrix.indptr)) + train.matrix.indices
    found = np.zeros(0, dtype=np.int64)
    while len(found) < wanted:
        drawn = rng.integers(0, n_users * n_items, size=2 * (wanted - len(found)) + 16)
        fresh = np.setdiff1d(np.union1d(found, drawn), taken)
        found = rng.permutation(fresh)[:wanted]
    like = rng.integers(0, max(train.nnz, 1), size=wanted)
    return _assembled(
        train,
        np.concatenate([taken, found]),
        np.concatenate([train.matrix.data, train.matrix.data[like]]),
        None if train.times is None else np.concatenate([train.times, train.times[like]]),
    )


def merge(train: Interactions, extra: Interactions) -> Interactions:
    """The interactions of both over the items of ``train``; of a repeated pair ``extra`` counts.

    New users are appended; users' features are then left out, times too where only one side has them.
    """
    extra = extra.with_items(train.items)
    rows = train.user_rows(extra.user_ids)
    new = np.flatnonzero(rows < 0)
    rows[new] = train.shape[0] + np.arange(len(new))
    n_items = train.shape[1]
    users = pa.concat_tables([train.users.select([USER]), extra.users.select([USER]).take(pa.array(new))])
    if len(new) == 0:
        users = train.users
    keys = np.repeat(np.arange(train.shape[0]) * n_items, np.diff(train.matrix.indptr)) + train.matrix.indices
    more = np.repeat(rows * n_items, np.diff(extra.matrix.indptr)) + extra.matrix.indices
    kept = ~np.isin(keys, more)
    times = None
    if train.times is not None and extra.times is not None:
        times = np.concatenate([train.times[kept], extra.times])
    base = Interactions(sp.csr_array((users.num_rows, n_items), dtype=np.float32), users, train.items)
    return _assembled(
        base, np.concatenate([keys[kept], more]), np.concatenate([train.matrix.data[kept], extra.matrix.data]), times
    )


def _assembled(like: Interactions, keys: np.ndarray, values: np.ndarray, times: np.ndarray | None) -> Interactions:
    """Interactions from ``user x items + item`` keys, in any order."""
    n_users, n_items = like.shape
    order = np.argsort(keys, kind="stable")
    users, items = np.divmod(keys[order], n_items)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=n_users))])
    matrix = sp.csr_array((values[order].astype(np.float32), items.astype(np.int32), indptr), shape=like.shape)
    return Interactions(matrix, like.users, like.items, None if times is None else times[order])

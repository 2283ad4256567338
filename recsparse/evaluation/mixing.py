"""Interactions put together: noise added, another's merged in."""

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from recsparse.errors import ConfigError
from recsparse.interactions.interactions import USER, Interactions


def add_noise(train: Interactions, share: float, *, seed: int = 0, spare: Interactions | None = None) -> Interactions:
    """Add ``share`` times as many random interactions as there are: pairs nobody has, each equally likely.

    Their values (and times) are drawn from those there are, so that only the pairs are wrong. None is among the pairs
    to ``spare``, as a test's targets: a model that was told of one could not be asked for it.

    Example:
        >>> train = Interactions.from_csr(np.eye(10))
        >>> add_noise(train, 0.4).nnz
        14
    """
    if not share >= 0.0:  # NaN included
        raise ConfigError(f"The share of noise is {share}; it must not be negative.")
    n_users, n_items = train.shape
    wanted = round(share * train.nnz)
    taken = keys = _keys(train)
    if spare is not None:
        rows, asked = train.user_rows(spare.user_ids), spare.with_items(train.items)
        taken = np.union1d(keys, _keys(asked, rows))
    if wanted > n_users * n_items - len(taken):
        raise ConfigError(f"A noise of {share:.0%} asks for {wanted} free pairs; there are fewer.")
    rng = np.random.default_rng(seed)
    found = np.zeros(0, dtype=np.int64)
    while len(found) < wanted:
        drawn = rng.integers(0, n_users * n_items, size=2 * (wanted - len(found)) + 16)
        fresh = np.setdiff1d(np.union1d(found, drawn), taken)
        found = rng.permutation(fresh)[:wanted]
    like = rng.integers(0, max(train.nnz, 1), size=wanted)
    return _assembled(
        train,
        np.concatenate([keys, found]),
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
    keys, more = _keys(train), _keys(extra, rows)
    kept = ~np.isin(keys, more)
    times = None
    if train.times is not None and extra.times is not None:
        times = np.concatenate([train.times[kept], extra.times])
    base = Interactions(sp.csr_array((users.num_rows, n_items), dtype=np.float32), users, train.items)
    return _assembled(
        base, np.concatenate([keys[kept], more]), np.concatenate([train.matrix.data[kept], extra.matrix.data]), times
    )


def _keys(interactions: Interactions, rows: np.ndarray | None = None) -> np.ndarray:
    """``user x items + item`` of each pair, users at ``rows`` of another table; those it lacks (-1) are left out."""
    n_users, n_items = interactions.shape
    user = np.repeat(np.arange(n_users) if rows is None else rows, np.diff(interactions.matrix.indptr))
    keys: np.ndarray = (user * n_items + interactions.matrix.indices)[user >= 0]
    return keys


def _assembled(like: Interactions, keys: np.ndarray, values: np.ndarray, times: np.ndarray | None) -> Interactions:
    """Interactions from ``user x items + item`` keys, in any order."""
    n_users, n_items = like.shape
    order = np.argsort(keys, kind="stable")
    users, items = np.divmod(keys[order], n_items)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=n_users))])
    matrix = sp.csr_array((values[order].astype(np.float32), items.astype(np.int32), indptr), shape=like.shape)
    return Interactions(matrix, like.users, like.items, None if times is None else times[order])

"""Splits that others have published: the exact Mult-VAE protocol, and parts that come as files."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.interactions.interactions import ITEM, USER, Interactions
from recsparse.interactions.protocols import TEST, TEST_HISTORY, TRAIN, VALIDATION, VALIDATION_HISTORY
from recsparse.interactions.split import Split, assemble

MULT_VAE_SEED = 98765
MULT_VAE_FEWEST = 5
"""Users with fewer interactions have no target in the published code."""


def mult_vae(interactions: Interactions, *, heldout: int, seed: int = MULT_VAE_SEED, target: float = 0.2) -> Split:
    """Split as the published code of Mult-VAE does, draw for draw (Liang et al., WWW 2018; arXiv 1802.05814).

    Users in ascending order of their ids are permuted; the last ``heldout`` are the test, the ``heldout`` before them
    the validation. Items that training never sees are left out, also of the catalogue. Of each held-out user with at
    least 5 interactions, ``floor(0.2 n)`` are drawn as target. NumPy's legacy generator, whose stream is frozen, gives
    the published draws, provided the published file lists a user's items in ascending order of their ids, as ML-20M's.

    Build the data as the paper does: for ML-20M ``Cleaning(min_value=4, min_user=5, transform="implicit")`` and
    ``heldout=10000``; Netflix likewise with 40,000; for MSD ``Cleaning(min_user=20, min_item=200)`` made implicit
    and 50,000.

    Args:
        interactions: the cleaned data.
        heldout: users in validation, and users in the test.
        seed: the published one.
        target: share of a held-out user's interactions to be found.

    Raises:
        DataError: there are not enough users.
    """
    n_users, n_items = interactions.shape
    if not 0 < 2 * heldout < n_users:
        raise DataError(f"2 x {heldout} users cannot be held out of {n_users}; hold out fewer.")
    by_id = np.argsort(interactions.user_ids, kind="stable")
    order = by_id[np.random.RandomState(seed).permutation(n_users)]
    role = np.full(n_users, TRAIN, dtype=np.int8)
    role[order[n_users - 2 * heldout : n_users - heldout]] = VALIDATION
    role[order[n_users - heldout :]] = TEST
    matrix = interactions.matrix
    role_of = np.repeat(role, np.diff(matrix.indptr))
    seen = np.bincount(matrix.indices[role_of == TRAIN], minlength=n_items) > 0
    known = interactions.select_entries(seen[matrix.indices]).with_items(interactions.items.filter(seen))
    labels = np.repeat(role, np.diff(known.matrix.indptr))
    place = np.argsort(np.argsort(known.item_ids, kind="stable"), kind="stable")
    for held, history in ((VALIDATION, VALIDATION_HISTORY), (TEST, TEST_HISTORY)):
        rng = np.random.RandomState(seed)
        for user in by_id[role[by_id] == held]:
            own = slice(known.matrix.indptr[user], known.matrix.indptr[user + 1])
            labels[own] = history
            n = own.stop - own.start
            if n >= MULT_VAE_FEWEST:
                ascending = own.start + np.argsort(place[known.matrix.indices[own]])
                labels[ascending[rng.choice(n, size=int(target * n), replace=False)]] = held
    about = {"protocol": "mult-vae", "seed": seed, "options": {"heldout": heldout, "target": target}}
    return assemble(known, labels, about)


def predefined(train: Interactions, validation: Interactions, test: Interactions) -> Split:
    """Make a split of parts that were published as files; users and items are matched by id.

    A user's training interactions are the history; in the test its validation interactions as well.

    Args:
        train: what is learnt from.
        validation: what is tuned on; interactions of users and items unknown to ``train`` count too.
        test: what is measured.

    Raises:
        DataError: a pair is in two parts, or only some parts have times.
    """
    whole = _union([train, validation, test])
    labels = np.full(whole.nnz, TRAIN, dtype=np.int8)
    taken = np.zeros(whole.nnz, dtype=np.int64)
    for part, label in ((train, TRAIN), (validation, VALIDATION), (test, TEST)):
        places = _places(whole, part)
        taken[places] += 1
        labels[places] = label
    if taken.max(initial=0) > 1:
        place = int(np.argmax(taken > 1))
        user = int(np.searchsorted(whole.matrix.indptr, place, side="right")) - 1
        item = int(whole.matrix.indices[place])
        pair = f"user {whole.users[USER][user].as_py()!r}, item {whole.items[ITEM][item].as_py()!r}"
        raise DataError(f"The pair {pair} is in {taken[place]} parts ({(taken > 1).sum()} such pairs); keep it in one.")
    return assemble(whole, labels, {"protocol": "predefined", "seed": None, "options": {}})


def _union(parts: list[Interactions]) -> Interactions:
    """Join parts by id: rows as in the first part, then what the others add."""
    timed = {part.times is not None for part in parts}
    if len(timed) > 1:
        raise DataError("Some parts have times and some have none; build all with or all without a time column.")
    users, items = (_join([getattr(part, table) for part in parts]) for table in ("users", "items"))
    user_index, item_index = (pd.Index(table.column(0).to_pylist()) for table in (users, items))
    rows, columns, values, times = [], [], [], []
    for part in parts:
        user = user_index.get_indexer(pd.Index(part.user_ids.tolist()))
        rows.append(np.repeat(user, np.diff(part.matrix.indptr)))
        columns.append(item_index.get_indexer(pd.Index(part.item_ids.tolist()))[part.matrix.indices])
        values.append(part.matrix.data)
        times.append(part.times if part.times is not None else np.zeros(part.nnz, dtype=np.int64))
    row, column, value, time = (np.concatenate(each) for each in (rows, columns, values, times))
    order = np.lexsort((column, row))
    keep = np.ones(len(order), dtype=np.bool_)
    keep[1:] = (np.diff(row[order]) != 0) | (np.diff(column[order]) != 0)
    order = order[keep]
    indptr = np.zeros(len(users) + 1, dtype=np.int64)
    np.cumsum(np.bincount(row[order], minlength=len(users)), out=indptr[1:])
    matrix = sp.csr_array((value[order], column[order].astype(np.int32), indptr), shape=(len(users), len(items)))
    return Interactions(matrix, users, items, time[order] if timed == {True} else None)


def _join(tables: list[pa.Table]) -> pa.Table:
    whole = tables[0]
    for table in tables[1:]:
        new = table.filter(pc.invert(pc.is_in(table.column(0), value_set=whole.column(0).combine_chunks())))
        whole = pa.concat_tables([whole, new], promote_options="default")
    return whole.combine_chunks()


def _places(whole: Interactions, part: Interactions) -> npt.NDArray[np.int64]:
    """Where the part's interactions are stored in the whole."""
    n_items = whole.shape[1]
    key = np.repeat(np.arange(whole.shape[0]), np.diff(whole.matrix.indptr)) * n_items + whole.matrix.indices
    user = np.repeat(whole.user_rows(part.user_ids), np.diff(part.matrix.indptr))
    item = whole.item_rows(part.item_ids)[part.matrix.indices]
    places: npt.NDArray[np.int64] = np.searchsorted(key, user * n_items + item)
    return places

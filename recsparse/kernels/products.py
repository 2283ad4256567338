"""The best K items by inner product, exactly, without ever holding all scores.

Each thread takes its own users through the catalogue tile by tile: the tile of items is decoded once for thousands of
users, the scores of 64 users by 4,096 items are made by a single-threaded matrix product and stay in the thread's L2
cache, where the selection reads them.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from recsparse.errors import DataError
from recsparse.kernels.topk import Floats, Integers, Items, Selection, check_starts
from recsparse.parallel import for_ranges, resolve_jobs

TILE_USERS, TILE_ITEMS = 64, 4096
"""A tile of scores is 1 MiB: half of a current core's L2."""

_MOST_USERS = 8192
"""Users a thread takes through the catalogue at a time; what decoding a tile costs is divided by them."""

_LEAST_ROWS = 16
"""Rows a product has at least: below, BLAS sums in other orders, and a score would tell who was asked for beside."""

_FEW_USERS = 64
"""Users from which it pays to transpose a tile first. It changes no bit from ``_LEAST_ROWS`` rows on."""

Decode = Callable[[int, int], Floats]
"""``decode(start, stop)`` gives the vectors of items ``start`` .. ``stop - 1``, (stop - start, D) float32."""


def top_products(
    queries: Floats,
    decode: Decode,
    n_items: int,
    k: int,
    indptr: Integers,
    indices: Integers,
    *,
    n_jobs: int | None = None,
) -> tuple[Items, Floats]:
    """The ``k`` items with the greatest ``q · v`` for each query, leaving out the query's items in a CSR pattern.

    Args:
        queries: Q, (B, D) float32.
        decode: gives rows of V, (I, D); called from several threads.
        n_items: I.
        k: how many; where fewer remain, the rest is item -1 with score -inf.
        indptr: (B + 1,), with ``indices`` the CSR of items to leave out, as for :func:`recsparse.kernels.topk.top_k`.
        indices: item rows.
        n_jobs: threads; the result does not depend on it.

    Returns:
        Items (B, k) int32 and scores (B, k) float32, best first. Ties: the lower item row first.

    Raises:
        DataError: a query is not finite, or ``indptr`` is not of B rows of ``indices``.

    Cost: 2·B·I·D floating-point operations; memory B x (2k + 64) int64 and a tile a thread.

    Example:
        >>> V = np.eye(3, dtype=np.float32)
        >>> top_products(V[:1], lambda start, stop: V[start:stop], 3, 1, np.array([0, 1]), np.array([0]))[0]
        array([[1]], dtype=int32)
    """
    import torch  # noqa: PLC0415 (takes seconds, and training does not need it)

    queries = np.require(queries, np.float32, ["C", "W"])  # torch shares only what it may write to
    finite = np.isfinite(queries).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(
            f"Query {row} holds a number that is not finite; its model has probably diverged, fit it again."
        )
    check_starts(indptr, len(queries))
    items = np.empty((len(queries), k), dtype=np.int32)
    scores = np.empty((len(queries), k), dtype=np.float32)

    def work(start: int, stop: int) -> None:
        torch.set_num_threads(1)  # of this thread: torch's BLAS is linked in, out of reach of threadpoolctl
        selection = Selection.start(k, indptr[start : stop + 1], indices)
        Q = torch.from_numpy(queries[start:stop])
        buffer = torch.empty(TILE_USERS * (TILE_ITEMS + 1))
        for first, last in tiles:
            V = torch.from_numpy(np.require(decode(first, last), np.float32, ["W"])).T
            if stop - start >= _FEW_USERS:
                V = V.contiguous()
            for user in range(0, stop - start, TILE_USERS):
                block = Q[user : user + TILE_USERS]
                rows = len(block)
                if rows < _LEAST_ROWS:
                    block = torch.nn.functional.pad(block, (0, 0, 0, _LEAST_ROWS - rows))
                tile = buffer[: len(block) * V.shape[1]].view(len(block), V.shape[1])
                torch.mm(block, V, out=tile)
                selection.push(tile[:rows].numpy(), first, slice(user, user + rows))
        items[start:stop], scores[start:stop] = selection.finish()

    edges = [*range(0, max(n_items - 1, 1), TILE_ITEMS), n_items]  # a lone item joins the tile before it
    tiles = list(pairwise(edges))
    threads = torch.get_num_threads()
    share = -(-len(queries) // resolve_jobs(n_jobs))
    try:
        for_ranges(work, len(queries), step=max(1, min(share, _MOST_USERS)), n_jobs=n_jobs)
    finally:
        torch.set_num_threads(threads)
    return items, scores

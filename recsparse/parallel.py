"""One thread pool for every hot loop, with BLAS kept to one thread inside it.

Nested BLAS threading has cost other libraries a factor of 100: each of our threads would start a BLAS team.
"""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from threading import current_thread

import numpy as np
from threadpoolctl import ThreadpoolController

from recsparse.errors import ConfigError

OWN = "recsparse"
"""How the names of our threads begin."""

_controller: tuple[int, ThreadpoolController] | None = None


def resolve_jobs(n_jobs: int | None) -> int:
    """Turn scikit-learn's ``n_jobs`` into a number of threads: None and -1 mean every core this process may use.

    >>> resolve_jobs(3)
    3
    """
    if n_jobs is None or n_jobs == -1:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not isinstance(n_jobs, int | np.integer) or n_jobs < 1:
        raise ConfigError(f"n_jobs is {n_jobs!r}; it must be -1 (all cores), None or a whole number of at least 1.")
    return n_jobs


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Keep BLAS to one thread while our own pool runs."""
    # Looking for BLAS libraries takes milliseconds, so it is done again only after an import, which may load another.
    global _controller  # noqa: PLW0603
    if _controller is None or _controller[0] != len(sys.modules):
        _controller = len(sys.modules), ThreadpoolController()
    with _controller[1].limit(limits=1, user_api="blas"):
        yield


def share(work: Callable[[int, int], None], n: int, *, n_jobs: int | None = None) -> None:
    """Call ``work(start, stop)`` over ``range(n)`` in two pieces a thread, taken as threads come free.

    For work of a tenth of a millisecond: this thread begins at once, others stand ready to join, and one that has not
    woken up when all is taken is not waited for. BLAS is left alone, so ``work`` must not call it. On a thread of our
    own pools the work stays on that thread. Otherwise as :func:`for_ranges`.

    >>> rows = []
    >>> share(lambda start, stop: rows.append((start, stop)), 4, n_jobs=2)
    >>> sorted(rows) == [(row, row + 1) for row in range(4)]
    True
    """
    jobs = min(resolve_jobs(n_jobs), n)
    if jobs <= 1 or current_thread().name.startswith(OWN):
        work(0, n)
        return
    step = -(-n // (2 * jobs))
    starts = iter(range(0, n, step))  # taking the next of an iterator is atomic

    def take() -> None:
        for start in starts:
            work(start, min(start + step, n))

    others = [_standing().submit(take) for _ in range(jobs - 1)]
    try:
        take()
    finally:
        started = [other for other in others if not other.cancel()]
        wait(started)
    for other in started:
        other.result()


@cache
def _standing() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(resolve_jobs(None), thread_name_prefix=OWN)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_standing.cache_clear)  # threads do not survive a fork


def for_ranges(work: Callable[[int, int], None], n: int, *, step: int, n_jobs: int | None = None) -> None:
    """Call ``work(start, stop)`` over ``range(n)`` in pieces of ``step``, on ``n_jobs`` threads.

    ``work`` must release the GIL (a ``nogil`` kernel, or BLAS) and write only to its own rows: the result then does
    not depend on the number of threads.

    >>> rows = []
    >>> for_ranges(lambda start, stop: rows.append((start, stop)), 5, step=2, n_jobs=1)
    >>> rows
    [(0, 2), (2, 4), (4, 5)]
    """
    pieces = [(start, min(start + step, n)) for start in range(0, n, step)]
    jobs = min(resolve_jobs(n_jobs), len(pieces))
    with single_threaded_blas():
        if jobs <= 1:
            for start, stop in pieces:
                work(start, stop)
            return
        pool = ThreadPoolExecutor(jobs, thread_name_prefix=OWN)
        try:
            for future in [pool.submit(work, start, stop) for start, stop in pieces]:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C only the pieces in flight are waited for

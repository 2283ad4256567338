import os
import threading
import time

import numba as nb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from recsparse.errors import ConfigError
from recsparse.parallel import for_ranges, resolve_jobs, single_threaded_blas


@nb.njit(nogil=True)
def _logistic(start, stop, x, out):
    for i in range(start, stop):
        value = x[i]
        for _ in range(50):
            value = 3.7 * value * (1.0 - value)
        out[i] = value


@given(n=st.integers(0, 300), step=st.integers(1, 70), jobs=st.integers(1, 5))
def test_every_index_is_worked_on_exactly_once(n: int, step: int, jobs: int) -> None:
    visits = np.zeros(n, np.int64)

    def work(start: int, stop: int) -> None:
        assert 0 < stop - start <= step
        visits[start:stop] += 1

    for_ranges(work, n, step=step, n_jobs=jobs)
    assert (visits == 1).all()


@pytest.mark.parametrize("jobs", [2, 3, 8, -1, None])
def test_a_kernel_gives_the_same_bytes_at_any_thread_count(jobs: int | None) -> None:
    x = np.random.default_rng(0).random(10_001)  # chaotic in the last bits: any other order of operations would show
    alone, together = np.empty_like(x), np.empty_like(x)
    for_ranges(lambda start, stop: _logistic(start, stop, x, alone), len(x), step=64, n_jobs=1)
    for_ranges(lambda start, stop: _logistic(start, stop, x, together), len(x), step=37, n_jobs=jobs)
    assert alone.tobytes() == together.tobytes()


def test_matrix_products_of_rows_give_the_same_bytes_at_any_thread_count() -> None:
    left, right = np.random.default_rng(0).normal(size=(2, 256, 256)).astype(np.float32)
    answers = []
    for jobs in (1, 2, 4):
        out = np.empty_like(left)

        def work(start: int, stop: int, out: np.ndarray = out) -> None:
            out[start:stop] = left[start:stop] @ right

        for_ranges(work, len(left), step=32, n_jobs=jobs)
        answers.append(out.tobytes())
    assert len(set(answers)) == 1


def test_pieces_run_at_the_same_time_on_as_many_threads_as_asked() -> None:
    meeting = threading.Barrier(3, timeout=20)
    for_ranges(lambda start, stop: meeting.wait() and None, 3, step=1, n_jobs=3)  # one thread alone would wait forever


def test_one_job_stays_on_the_calling_thread() -> None:
    threads = set()
    for_ranges(lambda start, stop: threads.add(threading.get_ident()), 10, step=1, n_jobs=1)
    assert threads == {threading.get_ident()}


def test_an_error_in_a_piece_reaches_the_caller() -> None:
    def work(start: int, stop: int) -> None:
        if start == 7:
            raise ValueError("row 7")

    for jobs in (1, 3):
        with pytest.raises(ValueError, match="row 7"):
            for_ranges(work, 20, step=1, n_jobs=jobs)


def test_an_error_stops_the_pieces_that_have_not_begun() -> None:
    done = []

    def work(start: int, stop: int) -> None:
        if start == 0:
            raise KeyboardInterrupt
        time.sleep(0.01)
        done.append(start)

    with pytest.raises(KeyboardInterrupt):
        for_ranges(work, 400, step=1, n_jobs=2)
    assert len(done) < 200


def _blas_threads() -> list[int]:
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_blas_keeps_to_one_thread_inside_and_is_given_back_even_after_an_error() -> None:
    before, inside = _blas_threads(), []
    assert before

    def work(start: int, stop: int) -> None:
        inside.append(_blas_threads())
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        for_ranges(work, 1, step=1)
    assert set(inside[0]) == {1}
    assert _blas_threads() == before
    with single_threaded_blas():
        assert set(_blas_threads()) == {1}
    assert _blas_threads() == before


def test_all_cores_means_those_this_process_may_use() -> None:
    usable = os.sched_getaffinity(0)
    assert resolve_jobs(None) == resolve_jobs(-1) == len(usable)
    try:
        os.sched_setaffinity(0, {min(usable)})
        assert resolve_jobs(-1) == 1
    finally:
        os.sched_setaffinity(0, usable)


@pytest.mark.parametrize("jobs", [0, -2])
def test_an_impossible_number_of_jobs_is_refused(jobs: int) -> None:
    with pytest.raises(ConfigError, match=f"n_jobs is {jobs}"):
        for_ranges(lambda start, stop: None, 3, step=1, n_jobs=jobs)

"""Numbers spread over a mask: each one where it belongs, bit for bit, and none read after the last."""

import mmap
import os
import subprocess
import sys

import llvmlite.binding
import numba as nb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsparse.kernels import expansion
from recsparse.kernels.lanes import LANES
from tests.guard import guarded

KINDS = {
    "singles": (expansion.expand_singles, np.float32, LANES),
    "halves": (expansion.expand_halves, np.float16, LANES),
    "bfloats": (expansion.expand_bfloats, np.uint16, LANES),
    "bytes": (expansion.expand_bytes, np.int8, LANES),
    "wide_bytes": (expansion.expand_wide_bytes, np.int8, 64),
    "wide_halves": (expansion.expand_wide_halves, np.float16, 32),
    "wide_bfloats": (expansion.expand_wide_bfloats, np.uint16, 32),
}


def calling(expand):
    @nb.njit
    def call(codes, at, factor, mask, out, to):
        expand(codes, at, factor, mask, out, to)

    return call


CALLS = {name: calling(expand) for name, (expand, *_) in KINDS.items()}


@pytest.fixture(scope="module")
def page():
    """A page of bytes before one that must not be read."""
    return guarded(np.zeros(mmap.PAGESIZE, dtype=np.uint8))


@pytest.mark.parametrize("name", KINDS)
@given(st.integers(0, 2**64 - 1), st.integers(0, 200), st.integers(0, 3), st.sampled_from([1, -0.25]), st.data())
def test_each_number_goes_to_its_one(page, name, word, after, to, factor, data):
    _, dtype, columns = KINDS[name]
    mask = word & data.draw(st.integers(0, 2**64 - 1)) & (1 << columns) - 1
    at, ones = 5, mask.bit_count()
    some = np.random.default_rng(word).standard_normal(at + ones + after)
    numbers = some.astype(np.float32).view(np.uint32) >> 16 if dtype == np.uint16 else some * 40
    numbers = numbers.astype(dtype)
    codes = page[len(page) - numbers.nbytes :]
    codes[:] = numbers.view(np.uint8)
    out = np.full(to + columns + 1, 7, dtype=np.float32)
    CALLS[name](codes, at, np.float32(factor), np.uint64(mask), out, to)
    expected = np.zeros(columns, dtype=dtype)
    expected[[lane for lane in range(columns) if mask >> lane & 1]] = numbers[at : at + ones]
    if dtype == np.uint16:
        expected = (expected.astype(np.uint32) << 16).view(np.float32)
    elif dtype == np.int8:
        expected = expected * np.float32(factor)  # minus zero where nothing is, if the factor is negative
    assert out[to : to + columns].tobytes() == expected.astype(np.float32).tobytes()
    assert (np.delete(out, slice(to, to + columns)) == 7).all()


@pytest.mark.skipif(not llvmlite.binding.get_host_cpu_features().get("avx2"), reason="cannot run AVX2 code")
@pytest.mark.parametrize("features", ["", "+f16c"])  # without and with an instruction that widens halves
def test_with_avx2_alone(tmp_path, features):
    if "NUMBA_CPU_NAME" in os.environ:
        pytest.skip("already compiling for another processor")
    tests = [f"{os.path.dirname(__file__)}/test_{name}.py" for name in ("expansion", "combinations", "multiply")]
    only = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    run = subprocess.run(command, env=os.environ | only, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr

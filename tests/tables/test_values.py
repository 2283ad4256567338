"""Rounding: the stated bound, the best scale, and that rounding twice is rounding once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsparse.errors import ConfigError, DataError
from recsparse.tables import pack, quantise
from recsparse.tables.values import scale_bytes, scale_lattice

INTEGERS = {"int8": 8, "int6": 6, "int5": 5, "int4": 4, "int3": 3, "int2": 2}


@st.composite
def arrays(draw, spread):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.standard_normal((draw(st.integers(1, 20)), draw(st.sampled_from([1, 3, 16, 40]))))
    values *= 10.0 ** rng.uniform(-draw(st.integers(0, spread)), 3, size=(len(values), 1))
    return values.astype(np.float32) * (rng.random(values.shape) < 0.8)


@settings(deadline=None)
@given(arrays(8), st.sampled_from(list(INTEGERS)))
def test_a_rows_error_obeys_the_stated_bound(values, value_type):
    rounded = quantise(values, value_type)
    error = np.sqrt(((rounded - values) ** 2).mean(axis=1))
    high = 2 ** (INTEGERS[value_type] - 1) - 1
    largest = np.abs(values).max(axis=1)
    smallest_scale = 2**-15 * 1.2 * largest.max() / high
    assert (error <= np.maximum(1.1 * largest / high, smallest_scale) / 2 + 1e-30).all()


@settings(deadline=None)
@given(arrays(0), st.sampled_from([*INTEGERS, "fp32", "bf16"]))
def test_rounding_twice_is_rounding_once(values, value_type):
    once = quantise(values, value_type)
    np.testing.assert_array_equal(quantise(once, value_type), once)


@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1e-36, 1e-30, 1e25, 1.7e38, float(np.finfo(np.float32).max)])
@pytest.mark.parametrize("value_type", INTEGERS)
def test_the_bound_holds_over_the_range_of_float32(value_type, magnitude):
    values = np.random.default_rng(2).uniform(-1, 1, (30, 16))
    values = (values / np.abs(values).max(axis=1, keepdims=True) * magnitude).astype(np.float32)
    rounded = quantise(values, value_type)
    error = np.sqrt(((rounded.astype(np.float64) - values) ** 2).mean(axis=1))
    high = 2 ** (INTEGERS[value_type] - 1) - 1
    assert (error <= np.maximum(1.1 * magnitude / high / 2, 2.0**-127)).all()
    np.testing.assert_array_equal(quantise(rounded, value_type), rounded)
    np.testing.assert_array_equal(pack(values, layout="dense", value_type=value_type).to_dense(), rounded)
    assert np.isfinite(quantise(values, value_type, scales="column")).all()


@pytest.mark.parametrize("value_type", INTEGERS)
def test_rounding_is_the_same_at_any_power_of_two(value_type):
    values = np.random.default_rng(3).standard_normal((50, 16)).astype(np.float32)
    rounded = quantise(values, value_type)
    for power in (-90.0, 90.0):
        np.testing.assert_array_equal(quantise(values * np.float32(2**power), value_type), rounded * 2**power)


@pytest.mark.parametrize("value_type", INTEGERS)
def test_the_scale_search_beats_spanning_the_row(value_type):
    values = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)
    high = 2 ** (INTEGERS[value_type] - 1) - 1
    scale = np.abs(values).max(axis=1, keepdims=True) / high
    plain = np.rint(values / scale) * scale
    ours, theirs = ((quantise(values, value_type) - values) ** 2).mean(), ((plain - values) ** 2).mean()
    assert ours < theirs * {"int8": 1.1, "int6": 1.0}.get(value_type, 0.95)


def test_float_types_round_to_nearest():
    values = np.float32([[1 + 2**-9, 1 + 2**-8 + 2**-20, -3.14159, 1e-8]])
    np.testing.assert_array_equal(quantise(values, "fp16"), values.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(quantise(values, "bf16")[0, :2], [1, 1 + 2**-7])


@pytest.mark.parametrize("sign", [1, -1])
def test_what_would_round_to_infinity_is_refused(sign):
    largest = np.float32((2 - 2**-7) * 2.0**127)
    half = np.float32(2.0**119)  # from there up it is nearer to the next bfloat16, which there is not
    fits = np.nextafter(largest + half, np.float32(0))
    assert pack([[sign * fits]], value_type="bf16").lookup([0]) == sign * largest
    for value_type, large in (("bf16", largest + half), ("bf16", 3.4e38), ("fp16", 65505)):
        with pytest.raises(DataError, match=f"does not fit {value_type}"):
            pack(np.float32([[sign * large]]), value_type=value_type)


def test_masked_entries_have_no_say():
    values = np.float32([[1.0, 100.0, 2.0]])
    mask = np.array([[True, False, True]])
    np.testing.assert_array_equal(quantise(values, "int4", mask=mask)[:, [0, 2]], quantise(values[:, [0, 2]], "int4"))
    assert quantise(values, "int4", mask=mask)[0, 1] == 0


def test_the_same_bytes_whatever_the_threads():
    values = np.random.default_rng(1).standard_normal((20_000, 16)).astype(np.float32)
    one, two = (pack(values, value_type="int4", n_jobs=jobs).tensors() for jobs in (1, 2))
    assert all((one[name] == two[name]).all() for name in one)


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="int1"):
        quantise(np.ones((1, 1)), "int1")
    with pytest.raises(ConfigError, match="scales"):
        quantise(np.ones((1, 1)), "int8", scales="table")
    with pytest.raises(DataError, match="finite"):
        quantise([[np.nan]], "int8")


@pytest.mark.parametrize("value_type", ["int8", "int3"])
def test_a_column_scale_is_the_best_of_those_tried(value_type):
    values = np.random.default_rng(5).standard_normal((300, 7)).astype(np.float32)
    high = 2 ** (int(value_type[3:]) - 1) - 1
    rounded = quantise(values, value_type, scales="column")
    for column in range(7):
        number = values[:, column]
        spans = np.abs(number).max() / high * np.linspace(1, 0.3, 15)
        tried = [np.clip(np.rint(number / s), -high - 1, high) * s for s in (*spans, *-spans)]
        best = min(float(np.square(number - each).sum()) for each in tried)
        np.testing.assert_allclose(np.square(number - rounded[:, column]).sum(), best, rtol=1e-4)


@pytest.mark.parametrize("exponent", [-1008, -200, 0, 700])
def test_scale_bytes_are_found_again(exponent):
    every = np.arange(256, dtype=np.uint8)
    codes, found = scale_bytes(scale_lattice(exponent), np.ones(256, dtype=bool))
    assert found.tolist() == [exponent]
    np.testing.assert_array_equal(codes, every)
    used = every % 128 < 100
    few, lower = scale_bytes(scale_lattice(exponent), used)
    np.testing.assert_array_equal(scale_lattice(int(lower[0]))[few][used], scale_lattice(exponent)[used])

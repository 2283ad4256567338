"""Products of mostly zero rows, by strips of columns."""

import numpy as np
import pytest

from recsparse.kernels.segments import multiply_nonzero
from recsparse.kernels.vector import LANES


@pytest.mark.parametrize("width", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("dim", [1, 15, 16, 17, 64, 80, 100, 128])
def test_products_are_those_of_the_dense_matrices(width, dim):
    rng = np.random.default_rng(width + dim)
    left = np.where(rng.random((9, width)) < 0.2, rng.standard_normal((9, width)), 0).astype(np.float32)
    left[3] = 0
    left[4] = 1
    right = rng.standard_normal((width, dim)).astype(np.float32)
    beyond = np.full(LANES, np.nan, dtype=np.float32)
    out = np.full(10 * dim, 7, dtype=np.float32)
    columns = np.empty(width, dtype=np.int64)
    multiply_nonzero(np.r_[left.ravel(), beyond], 9, width, right.ravel(), dim, columns, out)
    np.testing.assert_allclose(out[: 9 * dim].reshape(9, dim), left.astype(np.float64) @ right, atol=1e-4)
    assert (out[9 * dim :] == 7).all()

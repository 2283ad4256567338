"""What is packed comes out as it went in, and is never more than the values themselves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsparse.distributed.traffic import pack, unpack


@given(st.lists(st.sampled_from([0.0, 0.0, 1.5, -2.0, 1e-30, np.inf]), max_size=70))
def test_packing_is_undone_and_never_costs(entries: list[float]) -> None:
    values = np.array(entries, dtype=np.float32)
    data = pack(values)
    np.testing.assert_array_equal(unpack(data, len(values)), values)
    assert len(data) == min(values.nbytes, -(-len(values) // 8) + 4 * np.count_nonzero(values))

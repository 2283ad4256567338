"""The same rows through other libraries, and back."""

import numpy as np
import pytest
import torch

from recsparse.errors import DataError
from recsparse.tables import Mask, from_fbgemm, from_torch, pack, quantise, to_fbgemm, to_scipy, to_torch

RNG = np.random.default_rng(21)
VALUES = RNG.standard_normal((200, 64)).astype(np.float32)
KEPT = (RNG.random((200, 64)) < 0.3) & (RNG.random(200) < 0.7)[:, None]
LAYOUTS = ["rows", "bitmap", "csr", "combination"]
TYPES = ["fp32", "fp16", "bf16", "int8", "int4", "int2"]


@pytest.mark.parametrize("value_type", TYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scipy_there_and_back(layout, value_type):
    table = pack(VALUES, Mask.from_dense(KEPT), layout=layout, value_type=value_type)
    matrix = to_scipy(table)
    np.testing.assert_allclose(matrix.toarray(), table.to_dense(), rtol=1e-6)
    np.testing.assert_allclose(pack(matrix, value_type=value_type).to_dense(), table.to_dense(), rtol=1e-6)


@pytest.mark.parametrize("value_type", TYPES)
@pytest.mark.parametrize("scales", ["row", "column"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_torch_module_answers_as_the_table(layout, value_type, scales):
    fallback = "mean" if scales == "row" else "zero"
    table = pack(VALUES, Mask.from_dense(KEPT), layout=layout, value_type=value_type, scales=scales, fallback=fallback)
    module = to_torch(table)
    ids = torch.tensor([0, 1, 199, -1, 200, 1, 57])
    torch.testing.assert_close(module(ids), table.lookup(ids))
    exported = torch.export.export(module, (ids,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    torch.testing.assert_close(exported(ids[:3]), table.lookup(ids[:3]))
    torch.testing.assert_close(exported(ids.new_tensor([-1, -1])), table.lookup(torch.tensor([-1, -1])))
    scripted = torch.jit.script(module)
    torch.testing.assert_close(scripted(ids), table.lookup(ids))
    back = from_torch(module, scales=scales)
    if scales == "row" or value_type[:3] != "int":  # column scales are fitted anew
        np.testing.assert_allclose(back.lookup(ids.numpy()), table.lookup(ids.numpy()), rtol=1e-5, atol=1e-6)


def test_an_embedding_can_be_packed_and_what_has_no_weight_is_refused():
    embedding = torch.nn.Embedding(5, 4)
    np.testing.assert_array_equal(from_torch(embedding).to_dense(), embedding.weight.detach().numpy())
    np.testing.assert_array_equal(pack(embedding.weight).to_dense(), embedding.weight.detach().numpy())
    halved = embedding.bfloat16()
    np.testing.assert_array_equal(from_torch(halved).to_dense(), halved.weight.detach().float().numpy())
    np.testing.assert_array_equal(quantise(halved.weight, "bf16"), halved.weight.detach().float().numpy())
    kept = halved.weight > 0
    np.testing.assert_array_equal(pack(halved.weight, kept).mask.to_dense(), kept.numpy())
    table = pack(VALUES, Mask.from_dense(KEPT), layout="csr", value_type="bf16", fallback="mean")
    back = from_torch(to_torch(table).bfloat16())
    np.testing.assert_allclose(back.lookup([-1]), table.lookup([-1]), rtol=2**-8)
    with pytest.raises(DataError, match="weight"):
        from_torch(torch.nn.ReLU())


@pytest.mark.parametrize("value_type", TYPES)
@pytest.mark.parametrize("layout", ["dense", *LAYOUTS])
def test_fbgemm_answers_as_the_table_to_the_rounding_of_its_scales(layout, value_type):
    pytest.importorskip("fbgemm_gpu", reason="FBGEMM is not installed")
    table = pack(VALUES, Mask.from_dense(KEPT), layout=layout, value_type=value_type)
    module = to_fbgemm(table)
    ids = torch.arange(200, dtype=torch.int32)
    rows = module(ids, torch.arange(201, dtype=torch.int32)).numpy()
    bits = {"int8": 8, "int4": 4, "int2": 2}.get(value_type)
    bound = 0 if bits is None else 2.0 ** (bits - 1 - 10) * np.abs(VALUES).max() / (2 ** (bits - 1) - 1) * 2.2
    assert np.abs(rows - table.to_dense()).max() <= bound
    back = from_fbgemm(module, 200)
    np.testing.assert_allclose(back.to_dense(), rows, atol=1e-6)


def test_fbgemm_refuses_what_it_cannot_say():
    pytest.importorskip("fbgemm_gpu", reason="FBGEMM is not installed")
    for options in ({"fallback": "mean"}, {"value_type": "int8", "scales": "column"}):
        with pytest.raises(DataError, match="FBGEMM"):
            to_fbgemm(pack(VALUES, Mask.from_dense(KEPT), layout="rows", **options))
    with pytest.raises(DataError, match="float16"):
        to_fbgemm(pack(VALUES * 1e9, value_type="int8"))

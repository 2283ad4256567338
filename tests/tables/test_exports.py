"""The same rows through other libraries, and back."""

import numpy as np
import pytest
import torch

from recsparse.errors import DataError
from recsparse.tables import (
    FactoredTable,
    HashBucket,
    Mask,
    ShardedTable,
    convert,
    from_fbgemm,
    from_torch,
    pack,
    quantise,
    to_fbgemm,
    to_scipy,
    to_torch,
)

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
    for given in (module, scripted):
        back = from_torch(given, layout=layout)
        assert (back.layout, back.value_type, back.values.scaled_by) == (layout, value_type, table.values.scaled_by)
        np.testing.assert_array_equal(back.to_dense(), table.to_dense())
        np.testing.assert_array_equal(back.lookup([-1]), table.lookup([-1]))
        assert back.nbytes == table.nbytes


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


def test_a_factored_table_goes_to_torch_by_parts():
    table = FactoredTable(
        pack(VALUES, Mask.from_dense(KEPT), value_type="int4", fallback="mean"),
        pack(RNG.standard_normal((64, 12)), value_type="bf16"),
    )
    module = to_torch(table)
    ids = torch.tensor([0, 1, 199, -1, 200, 1, 57])
    scripted = torch.jit.script(module)
    for given in (module, scripted):
        torch.testing.assert_close(given(ids), table.lookup(ids))
        back = from_torch(given)
        assert isinstance(back, FactoredTable)
        np.testing.assert_array_equal(back.to_dense(), table.to_dense())
    exported = torch.export.export(module, (ids,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    torch.testing.assert_close(exported(ids[:3]), table.lookup(ids[:3]))
    np.testing.assert_allclose(
        to_scipy(table)[KEPT.any(axis=1)].toarray(), table.to_dense()[KEPT.any(axis=1)], 1e-4, 1e-5
    )


@pytest.mark.parametrize("value_type", ["fp32", "bf16", "int8", "int4"])
@pytest.mark.parametrize("scales", ["row", "column"])
def test_shards_are_joined_as_they_are(value_type, scales):
    whole = pack(VALUES, Mask.from_dense(KEPT), layout="csr", value_type=value_type, scales=scales)
    table = ShardedTable((whole[:60], whole[60:61], whole[61:]))
    assert table.mask == whole.mask
    np.testing.assert_array_equal(to_scipy(table).toarray(), to_scipy(whole).toarray())
    ids = torch.tensor([0, 1, 199, -1, 200, 60, 61])
    torch.testing.assert_close(to_torch(table)(ids), whole.lookup(ids))
    np.testing.assert_array_equal(from_torch(to_torch(table)).to_dense(), whole.to_dense())


def test_shards_packed_apart_keep_their_row_scales():
    values = VALUES * np.where(KEPT.any(axis=1), 1, 0)[:, None]
    table = ShardedTable((pack(values[:100] * 50, value_type="int8"), pack(values[100:], value_type="int8")))
    np.testing.assert_array_equal(from_torch(to_torch(table)).to_dense(), table.to_dense())
    far = ShardedTable((pack(values * 1e9, value_type="int8"), pack(values, value_type="int8")))
    with pytest.raises(DataError, match="Row scales from"):
        from_torch(to_torch(far))


def test_what_has_no_form_elsewhere_is_refused_in_a_sentence():
    mask = Mask.from_dense(KEPT)
    packed, low_rank = pack(VALUES, mask), FactoredTable(pack(VALUES, mask), pack(np.eye(64)))
    bucket = HashBucket.fit(VALUES, KEPT.any(axis=1), 3)
    with pytest.raises(DataError, match="no entries of its own"):
        low_rank.mask  # noqa: B018
    for table in (low_rank, ShardedTable((packed, packed))):
        with pytest.raises(DataError, match="convert its parts"):
            convert(table, layout="csr")
    with pytest.raises(DataError, match="knows fallbacks zero and mean, not 'hash'"):
        to_torch(pack(VALUES, mask, fallback=bucket))
    for other in (pack(VALUES, mask, value_type="int8"), pack(VALUES, mask, fallback="mean")):
        with pytest.raises(DataError, match="Shard 1 is"):
            to_torch(ShardedTable((packed, other)))
    pytest.importorskip("fbgemm_gpu", reason="FBGEMM is not installed")
    with pytest.raises(DataError, match="no entries of its own"):
        to_fbgemm(low_rank)


@pytest.mark.parametrize("value_type", TYPES)
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_fbgemm_takes_a_table_without_a_stored_row(rows, value_type):
    pytest.importorskip("fbgemm_gpu", reason="FBGEMM is not installed")
    module = to_fbgemm(pack(np.zeros((rows, 8)), layout="rows", value_type=value_type))
    found = module(torch.arange(rows, dtype=torch.int32), torch.arange(rows + 1, dtype=torch.int32))
    assert (tuple(found.shape), found.any().item()) == ((rows, 8), False)
    assert from_fbgemm(module, rows).shape == (rows, 8)


def test_fbgemm_takes_shards_and_gives_back_entries_that_are_not_zero():
    pytest.importorskip("fbgemm_gpu", reason="FBGEMM is not installed")
    whole = pack(VALUES, Mask.from_dense(KEPT), value_type="fp32")
    module = to_fbgemm(ShardedTable((whole[:60], whole[60:])))
    back = from_fbgemm(module, 200)
    np.testing.assert_array_equal(back.to_dense(), whole.to_dense())
    assert back.nbytes == whole.nbytes
    values = np.r_[np.ones((4, 8)), np.zeros((4, 8))]
    module = to_fbgemm(pack(values, Mask.from_rows(np.arange(8) < 6, 8), layout="rows"))
    np.testing.assert_array_equal(from_fbgemm(module, 8, fallback="mean").lookup([5, 7])[:, 1], np.float32([0, 4 / 6]))


def test_fbgemm_refuses_what_it_cannot_say():
    pytest.importorskip("fbgemm_gpu", reason="FBGEMM is not installed")
    for options in ({"fallback": "mean"}, {"value_type": "int8", "scales": "column"}):
        with pytest.raises(DataError, match="FBGEMM"):
            to_fbgemm(pack(VALUES, Mask.from_dense(KEPT), layout="rows", **options))
    with pytest.raises(DataError, match="float16"):
        to_fbgemm(pack(VALUES * 1e9, value_type="int8"))

"""What tables compute, against NumPy on the dense table."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recsparse.errors import DataError
from recsparse.kernels.topk import top_k
from recsparse.tables import LAYOUTS, Mask, pack


@pytest.fixture(params=[(layout, value_type) for layout in LAYOUTS for value_type in ("fp32", "int4")], ids=str)
def table(request):
    layout, value_type = request.param
    rng = np.random.default_rng(5)
    values = rng.standard_normal((300, 96)).astype(np.float32)
    kept = rng.random((300, 96)) < 0.3
    if layout == "ell":
        kept = np.argsort(rng.random((300, 96)), axis=1) < 11
    mask = Mask.from_dense(kept & (rng.random(300) < 0.8)[:, None])
    if layout == "block":
        mask = Mask.from_tiles(rng.random((100, 24)) < 0.3, (300, 96), (3, 4))
    if layout == "rows":
        mask = Mask.from_rows(rng.random(300) < 0.5, 96)
    return pack(values, mask, layout=layout, value_type=value_type)


def test_slices_keep_every_bit(table):
    dense = table.to_dense()
    for start, stop in ((0, 300), (0, 0), (1, 2), (37, 251), (299, 300), (290, 900)):
        part = table[start:stop]
        assert part.shape == (len(dense[start:stop]), 96)
        np.testing.assert_array_equal(part.to_dense(), dense[start:stop])
        assert part.layout == (table.layout if start % 3 == 0 or table.layout != "block" else "bitmap")
        assert part.values.n == part.row_counts().sum()


def test_mask_and_numbers_are_the_table(table):
    dense = np.zeros(table.shape, dtype=np.float32)
    dense[table.mask.to_dense()] = table.numbers()
    np.testing.assert_allclose(dense, table.to_dense(), rtol=1e-6)


def test_products(table):
    dense, rng = table.to_dense().astype(np.float64), np.random.default_rng(1)
    queries = rng.standard_normal((7, 96)).astype(np.float32)
    np.testing.assert_allclose(table.scores(queries), queries @ dense.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(table.matvec(queries[0]), dense @ queries[0], rtol=1e-4, atol=1e-4)
    weights = rng.standard_normal(300).astype(np.float32)
    np.testing.assert_allclose(table.rmatvec(weights), weights @ dense, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(table.gram(), dense.T @ dense, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(np.stack(list(table.rows())), table.to_dense())


def test_top_k_equals_selection_from_all_scores(table, monkeypatch):
    monkeypatch.setattr("recsparse.tables.table.BLOCK_BYTES", 64 * 96 * 4)  # several blocks
    rng = np.random.default_rng(2)
    queries = rng.standard_normal((9, 96)).astype(np.float32)
    seen = sp.random_array((9, 300), density=0.2, rng=rng, format="csr")
    seen.sort_indices()
    for k in (1, 10, 400):
        rows, scores = table.top_k(queries, k, seen.indptr, seen.indices)
        expected_rows, expected = top_k(table.scores(queries), k, seen.indptr, seen.indices)
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
        assert (rows == expected_rows).mean() > 0.99  # equal scores may round differently in another block size


def test_top_k_leaves_out_rows_in_any_order(table):
    query = np.random.default_rng(4).standard_normal((1, 96)).astype(np.float32)
    best = table.top_k(query, 8)[0][0]
    for left_out in ([3, 1, 0, 2], [0, 0, 1, 2, 3], [3, 2, 2, 1, 0, 0]):
        rows = [*best[left_out].tolist(), -1, 300, 2**32 + int(best[4])]
        assert table.top_k(query, 4, [0, len(rows)], rows)[0].tolist() == [best[4:].tolist()]
    for indptr, indices in (([0, 10**9], []), ([0, 1], None), ([0, 0, 0], []), ([1, 0], [5])):
        with pytest.raises(DataError, match="pattern"):
            table.top_k(query, 4, indptr, indices)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_bags_equal_embedding_bag(table, mode):
    rng = np.random.default_rng(3)
    ids, offsets = rng.integers(0, 300, 40), np.array([0, 0, 5, 5, 17, 40])
    weights = rng.random(40).astype(np.float32) if mode == "sum" else None
    expected = torch.nn.functional.embedding_bag(
        torch.from_numpy(ids), torch.from_numpy(table.to_dense()), torch.from_numpy(offsets), mode=mode,
        per_sample_weights=None if weights is None else torch.from_numpy(weights),
    )  # fmt: skip
    bags = table.bags(torch.from_numpy(ids), torch.from_numpy(offsets), weights, mode=mode)
    torch.testing.assert_close(bags, expected)


def test_torch_in_torch_out(table):
    ids = torch.tensor([3, -1, 299, 300, 3], dtype=torch.int32)
    rows = table.lookup(ids)
    assert rows.dtype == torch.float32
    np.testing.assert_array_equal(rows.numpy(), table.lookup(ids.numpy()))
    assert table.lookup([]).shape == (0, 96)
    assert table.bags([], []).shape == (0, 96)
    assert not table.bags([], [0, 0]).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_torch_floats_of_any_type_and_those_with_a_gradient_do(table, dtype):
    vectors = torch.linspace(-2, 2, 4 * 96, dtype=torch.float32).reshape(4, 96).to(dtype).requires_grad_()
    same = vectors.detach().float().numpy()
    torch.testing.assert_close(table.scores(vectors), torch.from_numpy(table.scores(same)))
    torch.testing.assert_close(table.matvec(vectors[1]), torch.from_numpy(table.matvec(same[1])))
    weights = vectors.reshape(-1)[:300]
    torch.testing.assert_close(table.rmatvec(weights), torch.from_numpy(table.rmatvec(same.ravel()[:300])))
    bags = table.bags([0, 1, 2], [0, 1], weights[:3])
    np.testing.assert_array_equal(bags, table.bags([0, 1, 2], [0, 1], same.ravel()[:3]))
    for got, expected in zip(table.top_k(vectors, 5), table.top_k(same, 5), strict=True):
        assert isinstance(got, torch.Tensor)
        np.testing.assert_array_equal(got.numpy(), expected)
    np.testing.assert_array_equal(table.matvec(same[1].tolist()), table.matvec(same[1]))


def test_what_does_not_fit_is_refused(table):
    with pytest.raises(DataError, match="queries"):
        table.scores(np.zeros((2, 95), dtype=np.float32))
    with pytest.raises(DataError, match="offsets"):
        table.bags([1, 2], [1])
    with pytest.raises(DataError, match="offsets"):
        table.bags([1, 2], [0, 3])
    with pytest.raises(DataError, match="offsets of 0 bags"):
        table.bags([1, 2, 3] * 20, [])
    with pytest.raises(DataError, match="weights"):
        table.bags([1, 2], [0], [1.0])
    with pytest.raises(DataError, match="mode"):
        table.bags([1], [0], mode="max")
    for start, stop in ((50, 10**7), (300, 301), (-1, 5), (5, 4)):
        for cut in (table.slice_rows, table.dense_rows, table.mask_rows):
            with pytest.raises(DataError, match="the table has 300"):
                cut(start, stop)
    with pytest.raises(DataError, match="slice"):
        table[3]
    with pytest.raises(DataError, match="k is 0"):
        table.top_k(np.zeros((1, 96), dtype=np.float32), 0)

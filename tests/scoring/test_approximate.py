import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.kernels.products import top_products
from recsparse.tables import pack

pytest.importorskip("usearch", reason="needs the extra `approximate`")

from recsparse.scoring.approximate import ApproximateItems


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    norms = rng.lognormal(0, 0.7, (4000, 1))  # lengths that differ: inner product and cosine rank differently
    return pack((rng.standard_normal((4000, 24)) * norms).astype(np.float32))


def test_most_of_the_exact_best_are_found_and_scored_exactly(table):
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((200, 24)).astype(np.float32)
    excluded = sp.csr_array((rng.random((200, 4000)) < 0.005).astype(np.float32))
    index = ApproximateItems.build(table)

    items, scores = index.top_k(queries, 10, excluded)

    assert index.recall(queries, 10, excluded) > 0.97
    assert not excluded.toarray()[np.arange(200)[:, None], items].any()
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ table.to_dense().T, items, 1), rtol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_recall_is_the_share_of_the_exact_best(table):
    queries = np.random.default_rng(2).standard_normal((50, 24)).astype(np.float32)
    index = ApproximateItems.build(table, connectivity=4, effort=8, search_effort=8)
    nothing = np.zeros(51, dtype=np.int64), np.zeros(0, dtype=np.int32)
    exact, _ = top_products(queries, table.dense_rows, 4000, 10, *nothing)
    found, _ = index.top_k(queries, 10)
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    assert index.recall(queries, 10) == pytest.approx(np.mean(shares))
    assert index.recall(queries, 10) < 0.99  # so little effort cannot find all: the measure can tell


def test_exclusions_in_any_order_are_left_out_and_those_of_other_queries_refused(table):
    small = pack(table.to_dense()[:20])
    index, query = ApproximateItems.build(small), np.ones((1, 24), np.float32)
    best = index.top_k(query, 6)[0][0]
    left_out = best[[2, 0, 1, 1]].astype(np.int32)
    excluded = sp.csr_array((np.ones(4, np.float32), left_out, np.array([0, 4])), shape=(1, 20))
    assert index.top_k(query, 3, excluded)[0].tolist() == [best[3:].tolist()]
    assert index.recall(query, 3, excluded) == 1
    with pytest.raises(DataError, match="has 1 rows; 2 are"):
        index.top_k(np.ones((2, 24), np.float32), 3, excluded)


def test_all_rows_excluded_leaves_nothing(table):
    small = pack(table.to_dense()[:20])
    everything = sp.csr_array(np.ones((1, 20), dtype=np.float32))
    items, scores = ApproximateItems.build(small).top_k(np.ones((1, 24), np.float32), 3, everything)
    assert items.tolist() == [[-1, -1, -1]]
    assert np.isneginf(scores).all()

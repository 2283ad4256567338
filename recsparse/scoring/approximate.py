"""Approximate best items for catalogues where exact is too slow: a graph index, over-fetched and scored exactly.

Needs the extra ``approximate`` (usearch). Exact scoring reads the whole catalogue for every user, at memory or cache
speed; below about a million items it is the better choice, as the recall is 1 and there is nothing to build.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import ConfigError
from recsparse.kernels.products import top_products
from recsparse.kernels.topk import NO_ITEM, check_starts, top_k
from recsparse.parallel import resolve_jobs
from recsparse.tables import Table

Floats = npt.NDArray[np.float32]
Items = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ApproximateItems:
    """A graph (HNSW) over a table's rows for the greatest inner products.

    The graph links by inner product itself (Morozov and Babenko, NeurIPS 2018). The reduction to angles by one more
    dimension (Bachrach et al., RecSys 2014) loses most of the recall where norms differ, as those of popular items do.
    Candidates are scored exactly, from the packed table.

    Attributes:
        table: the rows.
        index: a ``usearch.index.Index``.
    """

    table: Table
    index: Any

    @classmethod
    def build(
        cls, table: Table, *, connectivity: int = 16, effort: int = 128, search_effort: int = 128,
        n_jobs: int | None = None,
    ) -> Self:  # fmt: skip
        """Build the graph.

        Args:
            table: what to search.
            connectivity: links a row; more find more, and take more memory.
            effort: candidates looked at while building.
            search_effort: candidates looked at by a search.
            n_jobs: threads. With several the graph depends on their timing.

        Raises:
            ConfigError: usearch is not installed.
        """
        try:
            from usearch.index import Index  # noqa: PLC0415
        except ImportError as error:
            raise ConfigError("An approximate index needs usearch: pip install 'recsparse[approximate]'.") from error
        index = Index(
            ndim=table.shape[1], metric="ip", dtype="f32", connectivity=connectivity, expansion_add=effort,
            expansion_search=search_effort,
        )  # fmt: skip
        for start, block in table.blocks():
            keys = np.arange(start, start + len(block), dtype=np.uint64)
            index.add(keys, block, threads=resolve_jobs(n_jobs))
        return cls(table, index)

    def top_k(
        self, queries: Floats, k: int, excluded: sp.csr_array | None = None, *, n_jobs: int | None = None
    ) -> tuple[Items, Floats]:
        """About the best ``k`` rows for each query, as :func:`recsparse.kernels.products.top_products` gives exactly.

        Fetches as many more as the longest exclusion of the queries has.
        """
        n_queries = len(queries)
        excluded = sp.csr_array((n_queries, len(self.table)), dtype=np.int8) if excluded is None else excluded
        check_starts(excluded.indptr, n_queries)
        wide = min(k + int(np.diff(excluded.indptr).max(initial=0)), len(self.table))
        found = np.asarray(self.index.search(queries, wide, threads=resolve_jobs(n_jobs)).keys)
        found = np.sort(found.reshape(n_queries, wide).astype(np.int64), axis=1)  # ascending: ties to the lower row
        vectors = self.table.lookup(found.ravel()).reshape(n_queries, wide, -1)
        scores = np.einsum("bd,bwd->bw", queries, vectors).astype(np.float32)
        for row in range(n_queries):
            own = excluded.indices[excluded.indptr[row] : excluded.indptr[row + 1]]
            scores[row, np.isin(found[row], own)] = -np.inf
        nothing = np.zeros(n_queries + 1, dtype=np.int64)
        at, best = top_k(scores, min(k, wide), nothing, np.zeros(0, dtype=np.int32))
        items = np.take_along_axis(found, np.maximum(at, 0).astype(np.int64), axis=1)
        return np.where(at == NO_ITEM, NO_ITEM, items).astype(np.int32), best

    def recall(self, queries: Floats, k: int, excluded: sp.csr_array | None = None) -> float:
        """The share of the exact best ``k`` that :meth:`top_k` finds, over these queries."""
        none = sp.csr_array((len(queries), len(self.table)), dtype=np.int8) if excluded is None else excluded
        exact, _ = top_products(queries, self.table.dense_rows, len(self.table), k, none.indptr, none.indices)
        got, _ = self.top_k(queries, k, excluded)
        hits = sum(len(np.intersect1d(a[a != NO_ITEM], b)) for a, b in zip(exact, got, strict=True))
        return hits / max(int((exact != NO_ITEM).sum()), 1)

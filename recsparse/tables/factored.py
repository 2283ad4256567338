"""Low-rank x sparse: a table that is the product of two packed ones."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from recsparse.errors import DataError
from recsparse.kernels import segments
from recsparse.kernels.vector import LANES
from recsparse.parallel import share
from recsparse.tables.arrays import like
from recsparse.tables.fallback import Ids
from recsparse.tables.mask import Counts
from recsparse.tables.packed import MANY, PackedTable
from recsparse.tables.table import Table
from recsparse.tables.values import Floats

BASIS = "basis."
PICKED_BYTES = 1 << 19
"""Rows of S that are dense at one time: half of a second-level cache, the basis has the other."""


@dataclass(frozen=True, eq=False, repr=False)
class FactoredTable(Table):
    """``E = S B``: a row picks a few of m basis vectors. Product quantisation is the case of one-hot blocks in ``S``.

    Attributes:
        sparse: ``S``, (R, m), in any layout; its fallback, times ``B``, is the table's.
        basis: ``B``, (m, D), small and usually dense.

    Example:
        >>> from recsparse.tables import pack
        >>> table = FactoredTable(pack(np.array([[0, 2.0], [1, 0]])), pack(np.array([[1.0, 1, 1], [0, 1, 2]])))
        >>> table.lookup([0, 1, -1])
        array([[0., 2., 4.],
               [1., 1., 1.],
               [0., 0., 0.]], dtype=float32)
    """

    sparse: PackedTable
    basis: PackedTable

    def __post_init__(self) -> None:
        if self.sparse.shape[1] != self.basis.shape[0]:
            raise DataError(f"S is {self.sparse.shape} and B {self.basis.shape}; the columns of S are the rows of B.")

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """(R, D)."""
        return self.sparse.shape[0], self.basis.shape[1]

    @property
    def layout(self) -> str:
        """Of S, and that there is a B."""
        return f"{self.sparse.layout} x {self.basis.layout}"

    @property
    def value_type(self) -> str:
        """Of S and of B."""
        return f"{self.sparse.value_type} x {self.basis.value_type}"

    @property
    def header(self) -> dict[str, Any]:
        """Both tables'."""
        return {"kind": "factored", "sparse": self.sparse.header, "basis": self.basis.header}

    def tensors(self) -> dict[str, Any]:
        """S's as they are, B's under ``basis``."""
        return {**self.sparse.tensors(), **{BASIS + name: part for name, part in self.basis.tensors().items()}}

    @classmethod
    def from_tensors(cls, header: dict[str, Any], tensors: dict[str, Any]) -> "FactoredTable":
        """The inverse of ``header`` and ``tensors``."""
        basis = {name.removeprefix(BASIS): part for name, part in tensors.items() if name.startswith(BASIS)}
        return cls(
            PackedTable.from_tensors(header["sparse"], tensors), PackedTable.from_tensors(header["basis"], basis)
        )

    def row_counts(self) -> Counts:
        """Stored entries of each row of S, int64 (R,)."""
        return self.sparse.row_counts()

    def _gather(self, ids: Ids, out: Floats) -> None:
        m, dim = self.basis.shape
        few = 4 * self.sparse.values.n <= self.sparse.stored_rows * m  # else BLAS is quicker than leaving out zeros
        step = max(16, PICKED_BYTES // (4 * m))

        def work(first: int, last: int) -> None:
            picked = np.empty(min(step, last - first) * m + LANES, dtype=np.float32)
            columns = np.empty(m, dtype=np.int64)
            for start in range(first, last, step):
                stop = min(start + step, last)
                rows = picked[: (stop - start) * m].reshape(-1, m)
                self.sparse._gather(ids[start:stop], rows)
                if few:
                    result = out[start:stop].reshape(-1)
                    segments.multiply_nonzero(picked, len(rows), m, self._flat_basis, dim, columns, result)
                else:
                    np.matmul(rows, self._flat_basis.reshape(m, dim), out=out[start:stop])

        if few and len(ids) * dim >= MANY:
            share(work, len(ids))
        else:
            work(0, len(ids))

    @cached_property
    def _flat_basis(self) -> Floats:
        return self.basis.dense_rows(0, self.basis.shape[0]).reshape(-1)

    def _dense_basis(self) -> Floats:
        return self._flat_basis.reshape(self.basis.shape)

    def scores(self, queries: Any, *, n_jobs: int | None = None) -> Any:
        """``(Q B^T) S^T``: the basis is applied to the queries, once, not to the rows."""
        vectors = self._queries(queries)
        return like(queries, self.sparse.scores(vectors @ self._dense_basis().T, n_jobs=n_jobs))

    def gram(self) -> Floats:
        """``B^T (S^T S) B``."""
        basis = self._dense_basis()
        return np.asarray(basis.T @ self.sparse.gram() @ basis, dtype=np.float32)

    def slice_rows(self, start: int, stop: int) -> "FactoredTable":
        """Those rows of S, and all of B."""
        return FactoredTable(self.sparse.slice_rows(start, stop), self.basis)

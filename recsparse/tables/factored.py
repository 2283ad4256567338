"""Low-rank x sparse: a table that is the product of two packed ones."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from recsparse.errors import DataError
from recsparse.tables.arrays import like
from recsparse.tables.fallback import Ids
from recsparse.tables.mask import Counts
from recsparse.tables.packed import PackedTable
from recsparse.tables.supports import Full
from recsparse.tables.table import BLOCK_BYTES, Table
from recsparse.tables.values import Floats

BASIS = "basis."

CACHE_LINE = 64
"""Bytes of one, where the basis begins: vectors across two of them take half as long again."""


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
        whole = isinstance(self.sparse.support, Full)
        if whole and 2 * self.sparse.stored_rows > self.shape[0]:  # BLAS multiplies whole rows in half the time
            self._multiply_dense(ids, out)
            return
        found = self.sparse._multiply(ids, self._flat_basis, out)
        if self.sparse.fallback.kind != "zero" and not found.all():
            lost = np.flatnonzero(~found)
            rows = np.empty((len(lost), self.shape[1]), dtype=np.float32)
            self._multiply_dense(ids[lost], rows)
            out[lost] = rows

    def _multiply_dense(self, ids: Ids, out: Floats) -> None:
        step = max(16, BLOCK_BYTES // (4 * self.basis.shape[0]))
        for start in range(0, len(ids), step):
            rows = self.sparse.lookup(ids[start : start + step])
            np.matmul(rows, self._dense_basis(), out=out[start : start + step])

    @cached_property
    def _flat_basis(self) -> Floats:
        m, dim = self.basis.shape
        room = np.empty(m * dim + CACHE_LINE // 4, dtype=np.float32)
        start = -room.ctypes.data % CACHE_LINE // 4
        flat = room[start : start + m * dim]
        self.basis._gather(np.arange(m), flat.reshape(m, dim))
        return flat

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

"""What every table can do, whatever it is made of."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from recsparse.errors import DataError
from recsparse.kernels import segments
from recsparse.kernels.topk import Selection, check_starts
from recsparse.parallel import for_ranges
from recsparse.tables.arrays import as_array, check_rows, like, row_ids
from recsparse.tables.fallback import Ids
from recsparse.tables.mapping import advise
from recsparse.tables.mask import Counts, Mask
from recsparse.tables.values import Floats, check_finite

BLOCK_BYTES = 1 << 20
"""Dense rows that a pass over a table holds at one time, per thread; it fits a second-level cache."""


class Table(ABC):
    """An embedding table ``E`` (R x D), read only, whose rows come out as float32.

    Ids are row numbers, any integer; one that is out of range, and one whose row is not stored, return the table's
    fallback. NumPy in gives NumPy out, torch in gives torch out (sharing memory).
    """

    shape: tuple[int, int]

    @property
    @abstractmethod
    def layout(self) -> str:
        """How the support is stored."""

    @property
    @abstractmethod
    def value_type(self) -> str:
        """How the numbers are stored."""

    @property
    @abstractmethod
    def header(self) -> dict[str, Any]:
        """What a file says of the table besides its tensors, JSON."""

    @abstractmethod
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Everything that is stored, by name; a name's first part says what for."""

    @abstractmethod
    def _gather(self, ids: Ids, out: Floats) -> None:
        """Write the rows of ``ids``, fallbacks included, to ``out`` (B, D)."""

    @abstractmethod
    def slice_rows(self, start: int, stop: int) -> "Table":
        """The table of rows ``start`` to ``stop``, numbered from 0; DataError where it does not have them."""

    def row_counts(self) -> Counts:
        """Stored entries of each row, int64 (R,): all D, where a table leaves none out."""
        return np.full(self.shape[0], self.shape[1], dtype=np.int64)

    @property
    def mask(self) -> Mask:
        """The stored entries, at granularity element.

        Raises:
            DataError: the table is low-rank, whose rows have no entries of their own.
        """
        raise DataError(f"A {type(self).__name__} has no entries of its own; its parts have masks, table.sparse.mask.")

    @property
    def nbytes(self) -> int:
        """Bytes stored; to the byte what the file's tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def breakdown(self) -> dict[str, int]:
        """Bytes by purpose: values, scales, indices, bitmap, counts, remap, fallback, basis, where there are any."""
        parts: dict[str, int] = {}
        for name, tensor in self.tensors().items():
            purpose = name.split(".")[0]
            parts[purpose] = parts.get(purpose, 0) + tensor.nbytes
        return parts

    def lookup(self, ids: Any) -> Any:
        """Rows by id.

        Args:
            ids: integers of any type, (B,); NumPy, torch or a list. -1 and other unknown ids are allowed.

        Returns:
            float32 (B, D).

        Raises:
            DataError: the ids are not integers, or not one-dimensional.
        """
        rows = row_ids(ids)
        out = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        self._gather(rows, out)
        return like(ids, out)

    def bags(self, ids: Any, offsets: Any, weights: Any = None, *, mode: str = "sum") -> Any:
        """Sums or means of rows: bag ``b`` holds ``ids[offsets[b]:offsets[b + 1]]``, the last one the rest.

        Args:
            ids: integers (N,).
            offsets: integers (bags,), ascending from 0, as of ``torch.nn.functional.embedding_bag``; every id is in a
                bag, so there are none only where there is no id.
            weights: float (N,), with mode "sum" only; 1 by default.
            mode: "sum" or "mean". An empty bag is a row of zeros.

        Returns:
            float32 (bags, D).

        Raises:
            DataError: the offsets do not bound bags of the ids, or weights do not fit them or the mode.
        """
        rows, starts = row_ids(ids), row_ids(offsets)
        if mode not in ("sum", "mean"):
            raise DataError(f"The mode is {mode!r}; it must be 'sum' or 'mean'.")
        ends = np.append(starts, len(rows))
        if ends[0] != 0 or (np.diff(ends) < 0).any():  # without any bag, ends[0] is the number of ids
            raise DataError(
                f"The offsets of {len(starts)} bags must ascend from 0 and not pass the {len(rows)} ids; "
                f"they begin with {starts[:3].tolist()}."
            )
        if weights is None:
            factors = np.ones(len(rows), dtype=np.float32)
        else:
            factors = np.asarray(as_array(weights), dtype=np.float32)
            if factors.shape != rows.shape or mode == "mean":
                raise DataError(
                    f"There are {factors.shape} weights for {len(rows)} ids, mode {mode!r}; give one an id."
                )
            check_finite(factors)
        out = np.zeros((len(starts), self.shape[1]), dtype=np.float32)
        step = self._block_rows()
        scratch = np.empty((min(step, len(rows)), self.shape[1]), dtype=np.float32)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            self._gather(part, scratch[: len(part)])
            segments.add_segments(scratch[: len(part)], factors[start : start + step], ends, start, out)
        if mode == "mean":
            out /= np.maximum(np.diff(ends), 1)[:, None]
        return like(ids, out)

    def read_ahead(self) -> None:
        """Have the files it is mapped from, if any, read far ahead from now on, as passes over many rows want.

        ``blocks``, ``to_dense`` and ``scores`` do so; before a pass by :meth:`dense_rows` or ``lookup``, ask for it.
        """
        advise(self.tensors().values(), ahead=True)

    def rows(self) -> Iterator[Floats]:
        """Each row in turn, float32 (D,), decoded a block at a time."""
        for _, block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """The table a block of dense rows at a time: (first row, (rows, D))."""
        step = self._block_rows()
        self.read_ahead()
        for start in range(0, self.shape[0], step):
            yield start, self.dense_rows(start, min(start + step, self.shape[0]))

    def dense_rows(self, start: int, stop: int) -> Floats:
        """Rows ``start`` to ``stop``, float32 (stop - start, D); DataError where it does not have them."""
        check_rows(start, stop, self.shape[0], "the table")
        out = np.empty((stop - start, self.shape[1]), dtype=np.float32)
        self._gather(np.arange(start, stop, dtype=np.int64), out)
        return out

    def to_dense(self, *, n_jobs: int | None = None) -> Floats:
        """All rows, float32 (R, D)."""
        out = np.empty(self.shape, dtype=np.float32)

        def work(start: int, stop: int) -> None:
            self._gather(np.arange(start, stop, dtype=np.int64), out[start:stop])

        self.read_ahead()
        for_ranges(work, self.shape[0], step=self._block_rows(), n_jobs=n_jobs)
        return out

    def scores(self, queries: Any, *, n_jobs: int | None = None) -> Any:
        """``Q E^T``: float32 (B, D) queries give (B, R) scores; only blocks of the table are ever dense."""
        vectors = self._queries(queries)
        out = np.empty((len(vectors), self.shape[0]), dtype=np.float32)

        def work(start: int, stop: int) -> None:
            np.matmul(vectors, self.dense_rows(start, stop).T, out=out[:, start:stop])

        self.read_ahead()
        for_ranges(work, self.shape[0], step=self._block_rows(), n_jobs=n_jobs)
        return like(queries, out)

    def top_k(
        self, queries: Any, k: int, indptr: npt.ArrayLike | None = None, indices: npt.ArrayLike | None = None
    ) -> tuple[Any, Any]:
        """The best ``k`` rows for each query by inner product, leaving out a CSR pattern (B, R) if one is given.

        Never holds more than a block of scores. Ties go to the lower row; where rows run out, row -1 and -inf. Scores
        of -inf and NaN, which only queries that are not finite or too large have, are never among the best.

        Args:
            queries: float32 (B, D).
            k: how many.
            indptr: integers (B + 1,), with ``indices`` the rows to leave out for each query.
            indices: integers, in any order; one that is twice there counts once, an unknown one (-1, say) not at all.

        Returns:
            rows int32 (B, k) and scores float32 (B, k), best first.

        Raises:
            DataError: the queries are not (B, D), ``k`` is below 1, or the pattern is not one of B rows.
        """
        vectors = self._queries(queries)
        if k < 1:
            raise DataError(f"k is {k}; it must be at least 1.")
        starts = np.zeros(len(vectors) + 1, dtype=np.int64) if indptr is None else row_ids(indptr)
        check_starts(starts, len(vectors))
        selection = Selection.start(k, starts, row_ids([] if indices is None else indices))
        for start, block in self.blocks():
            selection.push(vectors @ block.T, start)
        out_rows, out_scores = selection.finish()
        return like(queries, out_rows), like(queries, out_scores)

    def matvec(self, vector: Any) -> Any:
        """``E x``: float32 (D,) gives (R,)."""
        return like(vector, self.scores(as_array(vector)[None])[0])

    def rmatvec(self, vector: Any) -> Any:
        """``E^T y``: float32 (R,) gives (D,)."""
        weights = np.asarray(as_array(vector), dtype=np.float32)
        if weights.shape != (self.shape[0],):
            raise DataError(f"The vector has shape {weights.shape}; the table has {self.shape[0]} rows.")
        out = np.zeros(self.shape[1], dtype=np.float64)
        for start, block in self.blocks():
            out += weights[start : start + len(block)] @ block
        return like(vector, out.astype(np.float32))

    def gram(self) -> Floats:
        """``E^T E``, float32 (D, D); blocks are summed in float64."""
        total = np.zeros((self.shape[1], self.shape[1]), dtype=np.float64)
        for _, block in self.blocks():
            total += block.T @ block
        return total.astype(np.float32)

    def __len__(self) -> int:
        """Rows."""
        return self.shape[0]

    def __getitem__(self, rows: slice) -> "Table":
        """``table[a:b]``: a table of those rows."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise DataError(f"A table is cut by a plain slice, not by {rows!r}; use lookup for rows by id.")
        start, stop, _ = rows.indices(self.shape[0])
        return self.slice_rows(start, max(start, stop))

    def __repr__(self) -> str:
        """Shape, layout, value type and size."""
        rows, dim = self.shape
        return f"{type(self).__name__}({rows} x {dim}, {self.layout}, {self.value_type}, {self.nbytes:,} bytes)"

    def _block_rows(self) -> int:
        return max(64, BLOCK_BYTES // (4 * self.shape[1]))

    def _queries(self, queries: Any) -> Floats:
        vectors = np.ascontiguousarray(as_array(queries), dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.shape[1]:
            raise DataError(f"The queries have shape {vectors.shape}; the table's are (B, {self.shape[1]}).")
        return vectors

"""Fallbacks: what an id without a stored row returns. A pruned id and a never-seen id take the same path."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from recsparse.errors import DataError, FormatError
from recsparse.kernels import bits as kernels
from recsparse.kernels import segments
from recsparse.tables.arrays import as_array, as_csr
from recsparse.tables.bits import DAMAGED, Bytes, bits_for, buffer_bytes, copy_bits, frozen, pack_integers
from recsparse.tables.bits import stored as stored_tensor
from recsparse.tables.values import Floats, check_finite, to_float32

Ids = npt.NDArray[np.int64]
Tensors = dict[str, npt.NDArray[Any]]


class Fallback(ABC):
    """How a table answers for rows it has not stored."""

    kind: ClassVar[str]

    @property
    def header(self) -> dict[str, Any]:
        """What a file says of it, JSON."""
        return {}

    @abstractmethod
    def tensors(self) -> Tensors:
        """What is stored, by name."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, header: dict[str, Any], tensors: Tensors, rows: int, dim: int) -> "Fallback":
        """The inverse, for a table of so many rows and columns; ValueError where it does not fit one."""

    @abstractmethod
    def fill(self, ids: Ids, missing: Ids, out: Floats) -> None:
        """Write ``out[missing]`` for ``ids[missing]``; ids are whatever was asked for, -1 and beyond included."""

    def slice_rows(self, start: int, stop: int) -> "Fallback":
        """The fallback of a slice of the table, which answers the same."""
        return self


@dataclass(frozen=True, eq=False)
class Zero(Fallback):
    """A row of zeros, which is what the kernels write anyway."""

    kind: ClassVar[str] = "zero"

    def tensors(self) -> Tensors:
        """Nothing."""
        return {}

    @classmethod
    def from_tensors(cls, header: dict[str, Any], tensors: Tensors, rows: int, dim: int) -> "Zero":
        """Nothing to read."""
        return cls()

    def fill(self, ids: Ids, missing: Ids, out: Floats) -> None:
        """Nothing to do."""


@dataclass(frozen=True, eq=False)
class Mean(Fallback):
    """One vector for all, float32 (D,)."""

    vector: Floats
    kind: ClassVar[str] = "mean"

    def tensors(self) -> Tensors:
        """The vector."""
        return {"fallback.vector": self.vector}

    @classmethod
    def from_tensors(cls, header: dict[str, Any], tensors: Tensors, rows: int, dim: int) -> "Mean":
        """Wrap the vector."""
        return cls(stored_tensor(tensors, "fallback.vector", np.float32, dim))

    def fill(self, ids: Ids, missing: Ids, out: Floats) -> None:
        """The vector, everywhere."""
        out[missing] = self.vector


@dataclass(frozen=True, eq=False)
class GroupMean(Fallback):
    """The mean of a popularity group's stored rows. Unknown ids take the last group's: number the least popular last.

    Attributes:
        groups: bit buffer of each row's group, ``bits_for(G - 1)`` bits each.
        n_rows: R.
        means: float32 (G, D).
    """

    groups: Bytes
    n_rows: int
    means: Floats
    kind: ClassVar[str] = "group-mean"

    @classmethod
    def fit(cls, values: npt.ArrayLike, groups: npt.ArrayLike, stored: npt.NDArray[np.bool_]) -> "GroupMean":
        """Average ``values`` (R, D) over the ``stored`` rows of each group; a group without any takes their mean.

        Args:
            values: (R, D).
            groups: int (R,), from 0, popular first.
            stored: bool (R,), the rows the table will store.
        """
        dense, group = to_float32(as_array(values)), np.asarray(as_array(groups), dtype=np.int64)
        if group.shape != (len(dense),) or stored.shape != group.shape or (len(group) and group.min() < 0):
            raise DataError(
                f"There are {group.shape} groups and {stored.shape} flags for {len(dense)} rows, from 0 up."
            )
        if not stored.any():
            raise DataError("There are no stored rows to take means of; use the zero fallback.")
        n_groups = int(group.max()) + 1
        counts = np.bincount(group[stored], minlength=n_groups)
        sums = np.zeros((n_groups, dense.shape[1]))
        np.add.at(sums, group[stored], dense[stored])
        means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], dense[stored].mean(axis=0))
        return cls(frozen(pack_integers(group, bits_for(n_groups - 1))), len(dense), frozen(means.astype(np.float32)))

    @property
    def header(self) -> dict[str, Any]:
        """Rows and groups."""
        return {"rows": self.n_rows, "groups": len(self.means)}

    def tensors(self) -> Tensors:
        """Groups and means."""
        return {"fallback.groups": self.groups, "fallback.means": self.means}

    @classmethod
    def from_tensors(cls, header: dict[str, Any], tensors: Tensors, rows: int, dim: int) -> "GroupMean":
        """Wrap them."""
        n_groups = header["groups"]
        check_fit(header, rows)
        if n_groups < 1:
            raise ValueError(f"{n_groups} groups")
        groups = stored_tensor(tensors, "fallback.groups", np.uint8, buffer_bytes(rows * bits_for(n_groups - 1)))
        return cls(groups, rows, matrix(tensors, "fallback.means", n_groups, dim))

    def fill(self, ids: Ids, missing: Ids, out: Floats) -> None:
        """Each row's group's mean."""
        width = bits_for(len(self.means) - 1)
        rows = ids[missing]
        known = (rows >= 0) & (rows < self.n_rows)
        group = np.full(len(rows), len(self.means) - 1, dtype=np.int64)
        read = np.empty(int(known.sum()), dtype=np.int64)
        kernels.read_integers(self.groups, width, rows[known], read)
        group[known] = np.minimum(read, len(self.means) - 1)
        out[missing] = self.means[group]

    def slice_rows(self, start: int, stop: int) -> "GroupMean":
        """Those rows' groups."""
        width = bits_for(len(self.means) - 1)
        return GroupMean(copy_bits(self.groups, start * width, (stop - start) * width), stop - start, self.means)


@dataclass(frozen=True, eq=False)
class HashBucket(Fallback):
    """One of H shared vectors, by a hash of the id (splitmix64).

    Attributes:
        vectors: float32 (H, D).
        first_row: what is added to an id before hashing, so that a slice answers as the whole table did; not to a
            negative one, which is no row of either.
    """

    vectors: Floats
    first_row: int = 0
    kind: ClassVar[str] = "hash"

    @classmethod
    def fit(cls, values: npt.ArrayLike, stored: npt.NDArray[np.bool_], buckets: int) -> "HashBucket":
        """Average the rows of ``values`` (R, D) that are *not* stored, by bucket; an empty one takes all rows' mean."""
        dense = to_float32(as_array(values))
        if buckets < 1 or not len(dense):
            raise DataError(f"{buckets} buckets for {len(dense)} rows; there must be one of each at least.")
        pruned = np.flatnonzero(~stored)
        bucket = bucket_of(pruned, buckets)
        counts = np.bincount(bucket, minlength=buckets)
        sums = np.zeros((buckets, dense.shape[1]))
        np.add.at(sums, bucket, dense[pruned])
        vectors = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], dense.mean(axis=0))
        return cls(frozen(vectors.astype(np.float32)))

    @property
    def header(self) -> dict[str, Any]:
        """Buckets and the first row."""
        return {"buckets": len(self.vectors), "first_row": self.first_row}

    def tensors(self) -> Tensors:
        """The vectors."""
        return {"fallback.vectors": self.vectors}

    @classmethod
    def from_tensors(cls, header: dict[str, Any], tensors: Tensors, rows: int, dim: int) -> "HashBucket":
        """Wrap them."""
        if header["buckets"] < 1:
            raise ValueError(f"{header['buckets']} buckets")
        return cls(matrix(tensors, "fallback.vectors", header["buckets"], dim), header["first_row"])

    def fill(self, ids: Ids, missing: Ids, out: Floats) -> None:
        """Each id's bucket's vector."""
        asked = ids[missing]
        rows = np.where(asked < 0, asked, asked + self.first_row)
        out[missing] = self.vectors[bucket_of(rows, len(self.vectors))]

    def slice_rows(self, start: int, stop: int) -> "HashBucket":
        """The same vectors for the same original ids."""
        return HashBucket(self.vectors, self.first_row + start)


@dataclass(frozen=True, eq=False)
class Features(Fallback):
    """The sum of a row's features' embeddings; ids beyond the table have no features and return zeros.

    Attributes:
        indptr: uint32 (R + 1,), features CSR.
        features: uint32 (nnz,), feature numbers.
        weights: float32 (nnz,).
        embeddings: float32 (F, D).
    """

    indptr: npt.NDArray[np.uint32]
    features: npt.NDArray[np.uint32]
    weights: Floats
    embeddings: Floats
    kind: ClassVar[str] = "features"

    @classmethod
    def fit(
        cls, values: npt.ArrayLike, features: Any, stored: npt.NDArray[np.bool_], regularisation: float = 1.0
    ) -> "Features":
        """Embed features so that they predict the stored rows: ridge regression ``min |X W - E|^2 + lambda |W|^2``.

        Args:
            values: ``E``, (R, D).
            features: ``X``, SciPy sparse (R, F); kept with the table.
            stored: bool (R,), the rows to learn from.
            regularisation: lambda.

        The cost is one F x F solve.
        """
        dense, every = to_float32(as_array(values)), as_csr(features).astype(np.float32, copy=False)
        if every.shape[0] != len(dense) or stored.shape != (len(dense),):
            raise DataError(
                f"There are features of {every.shape[0]} rows and {stored.shape} flags for {len(dense)} rows."
            )
        check_finite(every.data)
        known = every[stored]
        gram = (known.T @ known).toarray().astype(np.float64) + regularisation * np.eye(every.shape[1])
        embeddings = np.linalg.solve(gram, (known.T @ dense[stored]).astype(np.float64)).astype(np.float32)
        return cls(
            frozen(every.indptr.astype(np.uint32)), frozen(every.indices.astype(np.uint32)), frozen(every.data),
            frozen(embeddings),
        )  # fmt: skip

    def embed(self, features: Any) -> Floats:
        """Embed rows of features (B, F), of ids the table has never seen, say: float32 (B, D)."""
        given = as_csr(features).astype(np.float32, copy=False)
        if given.shape[1] != len(self.embeddings):
            raise DataError(f"There are {given.shape[1]} features; the table was packed with {len(self.embeddings)}.")
        return np.asarray(given @ self.embeddings, dtype=np.float32)

    @property
    def header(self) -> dict[str, Any]:
        """Counts."""
        return {"rows": len(self.indptr) - 1, "entries": len(self.features), "features": len(self.embeddings)}

    def tensors(self) -> Tensors:
        """The features of each row, and their embeddings."""
        return {
            "fallback.indptr": self.indptr, "fallback.features": self.features, "fallback.weights": self.weights,
            "fallback.embeddings": self.embeddings,
        }  # fmt: skip

    @classmethod
    def from_tensors(cls, header: dict[str, Any], tensors: Tensors, rows: int, dim: int) -> "Features":
        """Wrap them."""
        entries = header["entries"]
        check_fit(header, rows)
        return cls(
            stored_tensor(tensors, "fallback.indptr", np.uint32, rows + 1),
            stored_tensor(tensors, "fallback.features", np.uint32, entries),
            stored_tensor(tensors, "fallback.weights", np.float32, entries),
            matrix(tensors, "fallback.embeddings", header["features"], dim),
        )

    def fill(self, ids: Ids, missing: Ids, out: Floats) -> None:
        """Sums of embeddings; only the features of these rows are read."""
        known = missing[(ids[missing] >= 0) & (ids[missing] < len(self.indptr) - 1)]
        csr = (self.indptr, self.features, self.weights)
        if segments.sum_rows(ids[known], *csr, self.embeddings, known, out):
            raise FormatError("The table is damaged: a row's features are outside of what is stored. Save it again.")

    def slice_rows(self, start: int, stop: int) -> "Features":
        """Those rows' features."""
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        if not first <= last <= len(self.features):
            raise FormatError(DAMAGED)
        return Features(
            frozen(self.indptr[start : stop + 1] - np.uint32(first)), frozen(self.features[first:last]),
            frozen(self.weights[first:last]), self.embeddings,
        )  # fmt: skip


FALLBACKS: dict[str, type[Fallback]] = {
    fallback.kind: fallback for fallback in (Zero, Mean, GroupMean, HashBucket, Features)
}


def returns_zeros(fallback: str | Fallback) -> bool:
    """Whether a fallback, or its name, is zero: a row without an entry is then as good as a row of zeros."""
    return fallback == "zero" or isinstance(fallback, Zero)


def bucket_of(ids: Ids, buckets: int) -> Ids:
    """The bucket of each id: splitmix64 (Steele, Lea and Flood, 2014) modulo the buckets."""
    with np.errstate(over="ignore"):
        word = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((word ^ (word >> np.uint64(31))) % np.uint64(buckets)).astype(np.int64)


def check_fit(header: dict[str, Any], rows: int) -> None:
    """ValueError where a fallback was made for another number of rows."""
    if header["rows"] != rows:
        raise ValueError(f"it was made for {header['rows']} rows")


def matrix(tensors: Tensors, name: str, rows: int, dim: int) -> Floats:
    """A float32 (rows, D) tensor of a file, or ValueError."""
    tensor = tensors[name]
    if tensor.dtype != np.float32 or tensor.shape != (rows, dim):
        raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, expected float32 ({rows}, {dim})")
    return tensor


def mean_of(data: Floats, columns: npt.NDArray[np.integer], rows: int, dim: int) -> Mean:
    """The mean of the stored rows, given their numbers."""
    if rows == 0:
        raise DataError("There are no stored rows to take a mean of; use the zero fallback.")
    total = np.bincount(columns, weights=data, minlength=dim)
    return Mean(frozen((total / rows).astype(np.float32)))

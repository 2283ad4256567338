"""How many entries each row has, in as few bits as that takes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsparse.kernels import bits as bit_kernels
from recsparse.kernels.locate import GROUP
from recsparse.tables.bits import Bytes, bits_for, buffer_bytes, frozen, pack_integers, stored, unpack_integers
from recsparse.tables.mask import Counts
from recsparse.tables.values import NO_BYTES

Starts = npt.NDArray[np.unsignedinteger]
NO_STARTS: Starts = frozen(np.zeros(0, dtype=np.uint32))


def n_starts(rows: int) -> int:
    """How many starts so many rows have."""
    return -(-rows // GROUP)


def start_array(sizes: Counts) -> Starts:
    """Where every 16th row starts, given the size of each: uint32, or uint64 where that is too narrow."""
    ends = np.concatenate([[0], np.cumsum(sizes)])
    return frozen(ends[: len(sizes) : GROUP].astype(np.uint32 if ends[-1] < 2**32 else np.uint64))


@dataclass(frozen=True, eq=False)
class Counted:
    """Entries a row (or chunk): one number for all, or packed counts with a start every 16 rows.

    Attributes:
        per_row: entries of every row, when ``width`` is 0.
        width: bits a count.
        counts: a bit buffer of counts, row after row.
        starts: numbers before every 16th row.
    """

    per_row: int
    width: int
    counts: Bytes
    starts: Starts

    @classmethod
    def build(cls, counts: Counts, *, uniform: bool) -> "Counted":
        """Pack ``counts`` (rows, chunks)."""
        if uniform:
            return cls(int(counts[0, 0]) if counts.size else 0, 0, NO_BYTES, NO_STARTS)
        width = max(1, bits_for(int(counts.max(initial=0))))
        return cls(0, width, frozen(pack_integers(counts.reshape(-1), width)), start_array(counts.sum(axis=1)))

    @property
    def header(self) -> dict[str, Any]:
        """Widths."""
        return {"per_row": self.per_row, "count_bits": self.width}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Counts and starts, if rows differ."""
        return {"counts.bits": self.counts, "counts.starts": self.starts} if self.width else {}

    @classmethod
    def from_tensors(
        cls, header: dict[str, Any], tensors: dict[str, npt.NDArray[Any]], rows: int, chunks: int, dim: int
    ) -> "Counted":
        """Wrap the counts."""
        per_row, width = header["per_row"], header["count_bits"]
        if not (0 <= per_row <= dim and 0 <= width <= 32):
            raise ValueError(f"{per_row} entries a row and {width} bits a count")
        if width == 0:
            return cls(per_row, 0, NO_BYTES, NO_STARTS)
        counts = stored(tensors, "counts.bits", np.uint8, buffer_bytes(rows * chunks * width))
        return cls(0, width, counts, stored(tensors, "counts.starts", np.unsignedinteger, n_starts(rows)))

    def kernel_arguments(self) -> tuple[Any, ...]:
        """As the kernels take them."""
        return self.per_row, self.counts, self.width, self.starts

    def first_number(self, row: int, chunks: int = 1) -> int:
        """The start of its 16 rows, and the counts from there."""
        if self.width == 0 or row == 0:
            return row * self.per_row
        group = (row - 1) // GROUP
        first = group * GROUP * chunks
        counts = np.empty(row * chunks - first, dtype=np.int64)
        bit_kernels.read_integers(self.counts, self.width, np.arange(first, row * chunks), counts)
        return int(self.starts[group]) + int(counts.sum())

    def unpack(self, rows: int, chunks: int = 1) -> Counts:
        """Counts, int64 (rows, chunks)."""
        if self.width == 0:
            return np.full((rows, chunks), self.per_row, dtype=np.int64)
        return unpack_integers(self.counts, self.width, rows * chunks).reshape(rows, chunks)


def is_uniform(counts: Counts) -> bool:
    """Whether rows of one chunk all have as many entries, so that nothing need be stored of them."""
    return counts.shape[1] == 1 and (counts.size == 0 or bool(counts.min() == counts.max()))

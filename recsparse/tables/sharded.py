"""A table in shards of rows, each a table of its own: what several files, or several ranks, hold of one table."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import DataError
from recsparse.tables.arrays import check_rows
from recsparse.tables.fallback import Ids
from recsparse.tables.mask import Counts, Mask
from recsparse.tables.table import Table
from recsparse.tables.values import Floats


@dataclass(frozen=True, eq=False, repr=False)
class ShardedTable(Table):
    """Tables stacked by rows; an unknown id takes the last shard's fallback.

    Example:
        >>> from recsparse.tables import pack
        >>> table = ShardedTable((pack(np.eye(2)), pack(2 * np.eye(2))))
        >>> table.lookup([3, 0])
        array([[0., 2.],
               [1., 0.]], dtype=float32)
    """

    shards: tuple[Table, ...]

    def __post_init__(self) -> None:
        if not self.shards or len({shard.shape[1] for shard in self.shards}) != 1:
            shapes = [shard.shape for shard in self.shards]
            raise DataError(f"The shards have shapes {shapes}; there must be some, of one number of columns.")

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """The first row of each shard, and R: int64 (shards + 1,)."""
        return np.concatenate([[0], np.cumsum([shard.shape[0] for shard in self.shards])])

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """(R, D)."""
        return int(self.starts[-1]), self.shards[0].shape[1]

    @property
    def layout(self) -> str:
        """Of the shards."""
        return ", ".join(dict.fromkeys(shard.layout for shard in self.shards))

    @property
    def value_type(self) -> str:
        """Of the shards."""
        return ", ".join(dict.fromkeys(shard.value_type for shard in self.shards))

    @property
    def header(self) -> dict[str, Any]:
        """Each shard's."""
        return {"kind": "sharded", "shards": [shard.header for shard in self.shards]}

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Each shard's, under its number after the purpose."""
        named = {}
        for number, shard in enumerate(self.shards):
            for name, tensor in shard.tensors().items():
                purpose, _, rest = name.partition(".")
                named[f"{purpose}.{number}.{rest}"] = tensor
        return named

    def row_counts(self) -> Counts:
        """The shards', one after another."""
        return np.concatenate([shard.row_counts() for shard in self.shards])

    @cached_property
    def mask(self) -> Mask:
        """The shards', one below another."""
        return Mask.from_csr(sp.vstack([shard.mask.to_csr() for shard in self.shards]))

    def _gather(self, ids: Ids, out: Floats) -> None:
        shard = np.searchsorted(self.starts, ids, side="right") - 1
        shard[(shard < 0) | (shard >= len(self.shards))] = len(self.shards) - 1
        for number in np.unique(shard):
            place = np.flatnonzero(shard == number)
            asked = ids[place]
            local = np.where(asked < 0, asked, asked - self.starts[number])  # negative ids are nobody's rows
            out[place] = self.shards[number].lookup(local)

    def slice_rows(self, start: int, stop: int) -> Table:
        """The shards it touches, cut at its ends."""
        check_rows(start, stop, self.shape[0], "the table")
        parts: list[Table] = []
        for shard, first in zip(self.shards, self.starts[:-1].tolist(), strict=True):
            low, high = max(start - first, 0), min(stop - first, shard.shape[0])
            if low < high or (stop == start and not parts and shard is self.shards[-1]):
                parts.append(shard.slice_rows(low, max(low, high)) if (low, high) != (0, shard.shape[0]) else shard)
        return parts[0] if len(parts) == 1 else ShardedTable(tuple(parts))

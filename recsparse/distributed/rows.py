"""How ids find rows: the two tables as the model sees them, over physical rows that may be fewer, moved or pruned.

Every rank knows of every id which physical row it has, in a narrow array, and the fallback's vector. So an id without a
row is answered where it is asked for: neither it nor a vector nor a gradient is sent.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsparse.distributed.features import Features
from recsparse.distributed.sharded import ShardedTables

ABSENT = -1
_NOTHING = torch.zeros(0, dtype=torch.int64)


@dataclass
class Rows:
    """One table's ids.

    Attributes:
        n_ids: N.
        remap: (N,) int16 or int32, an id's physical row, or -1; None where every id has the row of its number.
        fallback: (D,), the vector of ids without a row.
    """

    n_ids: int
    remap: Tensor | None
    fallback: Tensor

    def find(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Physical rows of those ids that have one, and their positions (None: all have one)."""
        if self.remap is None:
            return ids, None
        rows = self.remap[ids].long()
        positions = torch.nonzero(rows >= 0)[:, 0]
        return (rows, None) if len(positions) == len(rows) else (rows[positions], positions)

    def spread(self, found: Tensor, positions: Tensor | None, n: int) -> Tensor:
        """Vectors (n, D) of all ids, given those of the ids that have a row."""
        if positions is None:
            return found
        return self.fallback.expand(n, -1).index_copy(0, positions, found)

    def present(self) -> Tensor:
        """Which ids have a row, bool (N,)."""
        return torch.ones(self.n_ids, dtype=torch.bool) if self.remap is None else self.remap >= 0

    @property
    def nbytes(self) -> int:
        """Bytes of the remap, on each rank."""
        return 0 if self.remap is None else self.remap.nbytes


class LogicalTables:
    """Tables looked up by id: the vector of an id is its row, or the fallback, plus what its features say.

    Attributes:
        sharded: the physical tables.
        rows: each table's ids; a feature table's ids are the features.
        features: of the tables whose ids have some.
        confined: tables of which zero entries are pruned for good: no gradient is sent to them.
    """

    def __init__(self, sharded: ShardedTables, rows: dict[str, Rows], features: dict[str, Features]) -> None:
        self.sharded, self.rows, self.features = sharded, rows, features
        self.confined: set[str] = set()

    def lookup(self, ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """Vectors (N, D) of ids (N,) of the tables named; every rank must call it together, with the same names."""
        asked = {name: features.ask(ids[name]) for name, features in self.features.items() if name in ids}
        wanted = dict.fromkeys(self.rows, _NOTHING) | ids
        wanted |= {self.features[name].table: each.rows for name, each in asked.items()}
        found = {name: rows.find(wanted[name]) for name, rows in self.rows.items()}
        vectors = self.sharded.lookup({name: rows for name, (rows, _) in found.items()})
        for name in self.confined:
            _confine(vectors[name])
        whole = {
            name: self.rows[name].spread(vectors[name], positions, len(wanted[name]))
            for name, (_, positions) in found.items()
        }
        for name, each in asked.items():
            whole[name] = whole[name] + each.sums(whole[self.features[name].table])
        return {name: whole[name] for name in ids}

    def fetch(self, table: str, ids: Tensor) -> Tensor:
        """Vectors of one table, without a gradient; every rank must call it together."""
        with torch.no_grad():
            return self.lookup({table: ids})[table]


def _confine(vectors: Tensor) -> None:
    if vectors.requires_grad:
        kept = vectors.detach() != 0
        vectors.register_hook(lambda gradient: gradient * kept)  # type: ignore[no-untyped-call]


def shares(n_ids: int, ranks: int) -> list[int]:
    """Where each rank's range of ids begins, and N: cut as torchrec cuts a row-wise table, ceil(N / ranks) each.

    Example:
        >>> shares(7, 3)
        [0, 3, 6, 7]
    """
    return [min(-(-n_ids // ranks) * number, n_ids) for number in range(ranks + 1)]


def narrow(remap: Tensor, n_rows: int) -> Tensor:
    """The remap in as few bytes as its rows need."""
    return remap.to(torch.int16 if n_rows <= np.iinfo(np.int16).max else torch.int32)


def balanced_placement(counts: npt.NDArray[np.int64]) -> Tensor:
    """Deal ids to rows so that any contiguous part of the table has its share of the popular ones.

    The i-th most popular id gets the row that the van der Corput sequence (bits of i reversed) gives its i-th point, so
    shards are asked for equally often whatever their number.

    Example:
        >>> balanced_placement(np.array([9, 7, 5, 3])).tolist()  # shards of two rows: ids 0 and 2, ids 1 and 3
        [0, 2, 1, 3]
    """
    n = len(counts)
    bits = max(1, (n - 1).bit_length())
    i = np.arange(n, dtype=np.int64)
    point = np.zeros(n, dtype=np.int64)
    for bit in range(bits):
        point |= ((i >> bit) & 1) << (bits - 1 - bit)
    row_of_rank = np.empty(n, dtype=np.int64)
    row_of_rank[np.argsort(point)] = i
    remap = np.empty(n, dtype=np.int64)
    remap[np.argsort(-counts, kind="stable")] = row_of_rank
    return narrow(torch.from_numpy(remap), n)


def initial_rows(seed: int, table: str, start: int, stop: int, dim: int, std: float) -> npt.NDArray[np.float32]:
    """Initial vectors of rows ``start`` to ``stop`` - 1: the same for any way of sharding."""
    block = 4096
    out = np.empty((stop - start, dim), dtype=np.float32)
    for number in range(start // block, -(-stop // block)):
        rng = np.random.default_rng([seed, *table.encode(), number])
        values = rng.standard_normal((block, dim), dtype=np.float32) * np.float32(std)
        low, high = max(start, number * block), min(stop, (number + 1) * block)
        out[low - start : high - start] = values[low - number * block : high - number * block]
    return out

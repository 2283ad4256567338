"""A table of N ids in R << N rows: which ids have a row follows their utility while training goes on."""

import time

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsparse.distributed.config import Budget
from recsparse.distributed.process import total
from recsparse.distributed.rows import Rows, narrow
from recsparse.distributed.sharded import Shard, ShardedTables


class RowBudget:
    """Who owns the rows of one table.

    An id's utility is ``decay`` times what it was at the last update, plus what its occurrences since then add: 1, the
    norm of the loss's gradient by its vector, or the norm of its vector. At an update the R ids of highest utility
    (ties to the lower id) have the rows: who stays keeps its row, and a new owner takes a row that was given up, which
    starts again from the fallback with no optimiser state. Ids without a row gather utility as well, since their
    occurrences are seen where they are asked for.

    Attributes:
        utility: (N,) float64, as of the last update, the same on every rank.
        gathered: (N,) float64, what this rank's occurrences have added since.
        seconds: what the last update took.
        moved: how many rows changed hands in it.
    """

    def __init__(self, tables: ShardedTables, table: str, budget: Budget, rows: Rows) -> None:
        self.budget, self._rows = budget, rows
        self._tables, self._table = tables, table
        self.shards: list[Shard] = tables.shards[table]
        self.n_rows = tables.specs[table].rows
        self.utility = torch.zeros(rows.n_ids, dtype=torch.float64)
        self.gathered = torch.zeros(rows.n_ids, dtype=torch.float64)
        self.seconds, self.moved = 0.0, 0

    def watch(self, ids: Tensor, vectors: Tensor) -> None:
        """Add what these occurrences (B,) with vectors (B, D) tell; gradients when they come."""
        kind = self.budget.utility
        if kind == "gradient":
            if vectors.requires_grad:
                vectors.register_hook(lambda gradient: self._add(ids, gradient))  # type: ignore[no-untyped-call]
        elif kind == "norm":
            self._add(ids, vectors.detach())
        else:
            self.gathered.index_add_(0, ids, torch.ones(len(ids), dtype=torch.float64))

    def _add(self, ids: Tensor, vectors: Tensor) -> None:
        self.gathered.index_add_(0, ids, vectors.norm(dim=1).double() / self._scale)

    @property
    def _scale(self) -> int:
        # The loss is multiplied by the number of ranks before its gradients are taken.
        return self._tables.world if self.budget.utility == "gradient" else 1

    def update(self) -> None:
        """Give the rows to the ids of highest utility; every rank calls it together.

        Cost: one sum over ranks of 8 bytes an id, and O(N log N) here.
        """
        began = time.perf_counter()
        self.utility.mul_(self.budget.decay).add_(total(self.gathered))
        self.gathered.zero_()
        remap = self._remap()
        order = np.argsort(-self.utility.numpy(), kind="stable")[: self.n_rows]
        deserving = np.zeros(len(remap), dtype=np.bool_)
        deserving[order] = True
        owners = np.full(self.n_rows, -1, dtype=np.int64)
        has = np.flatnonzero(remap >= 0)
        owners[remap[has]] = has
        lost = (owners >= 0) & ~deserving[owners]
        free = np.flatnonzero((owners < 0) | lost)
        new = np.sort(order[remap[order] < 0])  # neighbours stay neighbours: a rank's users are near each other
        given = free[: len(new)]
        remap[owners[lost]] = -1
        remap[new] = given
        self._rows.remap = narrow(torch.from_numpy(remap), self.n_rows)
        self._renew(given)
        self.moved, self.seconds = len(new), time.perf_counter() - began

    def _remap(self) -> npt.NDArray[np.int64]:
        if self._rows.remap is None:
            return np.arange(self._rows.n_ids)
        return self._rows.remap.long().numpy()

    def _renew(self, given: npt.NDArray[np.int64]) -> None:
        """Compute the fallback from the rows that stay, and start the given rows from it."""
        renewed = torch.zeros(self.n_rows, dtype=torch.bool)
        renewed[torch.from_numpy(given)] = True
        if self.budget.fallback == "mean":
            self._rows.fallback = self._mean(~renewed)
        for shard in self.shards:
            place = shard.place
            own = torch.nonzero(renewed[place.row : place.row + place.rows])[:, 0]
            shard.weights[own] = self._rows.fallback[place.column : place.column + place.columns]
            if shard.state is not None:
                shard.state[own] = 0.0

    def _mean(self, staying: Tensor) -> Tensor:
        n = int(staying.sum())
        if n == 0:
            return self._rows.fallback
        sums = torch.zeros(len(self._rows.fallback), dtype=torch.float64)
        for shard in self.shards:
            place = shard.place
            own = shard.weights[staying[place.row : place.row + place.rows]]
            sums[place.column : place.column + place.columns] += own.double().sum(dim=0)
        if self._tables.sharding[self._table] != "data-parallel":
            total(sums)
        return (sums / n).float()

"""Users that are not trained on, folded in on sharded tables as :class:`recsparse.models.mf.MF` folds them in."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from recsparse.distributed.process import total
from recsparse.distributed.rows import LogicalTables, shares
from recsparse.distributed.streams import Contents
from recsparse.interactions.reading import read_group, row_groups
from recsparse.models.alignment import aligned_users, closest_map
from recsparse.models.least_squares import ImplicitLoss
from recsparse.models.mf import MF

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_BLOCK = 1 << 14
"""Items fetched at a time."""


class FoldIn:
    """This rank's part of folding users in: least squares on the item table, then the map to learned vectors.

    A rank fetches only the items its users have; of the whole table it sums up ``VᵀV``. The map is fitted to the same
    training users as on one machine, of which each rank has a share.

    Args:
        data: the training data.
        contents: of it.
        names: of the user and the item table.
        histories: of the users to fold in, (B, I).
        rank: this process.
        world: how many there are.
    """

    def __init__(
        self, data: Path, contents: Contents, names: tuple[str, str], histories: sp.csr_array, rank: int, world: int
    ) -> None:
        self._names, self._n_items, self._starts = names, len(contents.items), shares(len(contents.items), world)
        self._own = slice(self._starts[rank], self._starts[rank + 1])
        sample = aligned_users(contents.users)
        cuts = shares(len(sample), world)
        self._sample = sample[cuts[rank] : cuts[rank + 1]]
        known = sp.vstack([histories, _histories(data, self._sample, self._n_items)], format="csr")
        self._items, columns = np.unique(known.indices, return_inverse=True)
        ones = np.ones(known.nnz, dtype=np.float32)
        self._known = sp.csr_array(
            (ones, columns.astype(np.int32), known.indptr), shape=(known.shape[0], len(self._items))
        )
        model = MF()
        self._loss = ImplicitLoss(model.fold_in_alpha0, model.fold_in_reg, 0.0, 1)

    def queries(self, tables: LogicalTables) -> Floats:
        """The users' vectors (B, D); every rank calls it together."""
        users, items = self._names
        factors = tables.fetch(items, torch.from_numpy(self._items.astype(np.int64))).numpy()
        regressed = self._loss.solve(self._known, factors, self._shared(tables))
        learned = tables.fetch(users, torch.from_numpy(self._sample)).numpy().astype(np.float64)
        n = len(regressed) - len(learned)
        sample = regressed[n:].astype(np.float64)
        sums = total(torch.from_numpy(np.stack([sample.T @ sample, sample.T @ learned]))).numpy()
        queries: Floats = regressed[:n] @ closest_map(sums[0], sums[1])
        return queries

    def _shared(self, tables: LogicalTables) -> Floats:
        """Alpha0 VᵀV, each rank summing over its share of the items."""
        dim = next(iter(tables.sharded.specs.values())).dim
        gram = np.zeros((dim, dim))
        for first in range(0, self._starts[1], _BLOCK):
            start = min(self._own.start + first, self._own.stop)
            block = torch.arange(start, min(start + _BLOCK, self._own.stop))
            vectors = tables.fetch(self._names[1], block).numpy()
            gram += vectors.T @ vectors
        shared: Floats = (self._loss.alpha0 * total(torch.from_numpy(gram)).numpy()).astype(np.float32)
        return shared


def _histories(data: Path, users: Rows, n_items: int) -> sp.csr_array:
    """Training histories of ascending user rows, from the row groups they lie in."""
    parts: list[Any] = [sp.csr_array((0, n_items), dtype=np.float32)]
    for group in row_groups(data):
        own = users[(users >= group.first) & (users < group.first + group.users)] - group.first
        if len(own):
            piece = read_group(group)
            whole = sp.csr_array((piece.values, piece.items, piece.indptr), shape=(len(piece), n_items))
            parts.append(whole[own])
    return sp.csr_array(sp.vstack(parts, format="csr"))

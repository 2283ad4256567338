"""Models that rank by the product of a user's vector and a packed item table."""

from copy import copy
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.utils.validation import check_is_fitted

from recsparse.interactions.interactions import Rows
from recsparse.kernels.products import top_products
from recsparse.models.base import Queries, Recommender, Scores
from recsparse.tables import Mask, Table, load_table, pack, save_table
from recsparse.tables.fallback import Mean

ITEM_TABLE = "item_table.safetensors"


class FactorModel(Recommender):
    """Base of iALS and MF: ``scores = Q Vᵀ`` with queries Q (B, D) and the item table V (I, D).

    What is evaluated, served and saved is always the packed table, with its pruning and its rounding.

    Attributes:
        item_table_: V, packed.
    """

    item_table_: Table

    def scores(self, queries: npt.NDArray[np.float32]) -> Scores:
        """Score every item, (B, I) float32. Cost: O(B x stored entries)."""
        scores: Scores = self.item_table_.scores(queries)
        return scores

    def _best(
        self, queries: Queries, k: int, excluded: sp.csr_array, candidates: Rows | None
    ) -> tuple[npt.NDArray[np.int32], Scores]:
        table = self.item_table_

        def decode(start: int, stop: int) -> Scores:
            if candidates is None:
                return table.dense_rows(start, stop)
            vectors: Scores = table.lookup(candidates[start:stop])
            return vectors

        n_items = table.shape[0] if candidates is None else len(candidates)
        return top_products(queries, decode, n_items, k, excluded.indptr, excluded.indices)

    def repack(self, value_type: str) -> Self:
        """A fitted copy whose item table is stored in another value type, without training again.

        Where one vector answers for all rows without an entry, as after a row budget, it goes on doing so.
        """
        check_is_fitted(self, "item_table_")
        other = copy(self)
        other.set_params(value_type=value_type)
        table = self.item_table_
        values, stored, unknown = table.to_dense(), table.row_counts() > 0, table.lookup([-1])[0]
        if unknown.any() and (values[~stored] == unknown).all():  # what is not stored is not zero: rows stay whole
            mask = Mask.from_rows(stored, table.shape[1])
            other.item_table_ = pack(values, mask, layout="rows", value_type=value_type, fallback=Mean(unknown))
        else:
            other.item_table_ = pack(values, value_type=value_type)
        return other

    def _pair_scores(self, queries: Queries, which: Rows, items: Rows) -> Scores:
        scores: Scores = np.einsum("nd,nd->n", queries[which], self.item_table_.lookup(items))
        return scores

    def _save_state(self, directory: Path) -> None:
        save_table(self.item_table_, directory / ITEM_TABLE)

    def _load_state(self, directory: Path) -> None:
        self.item_table_ = load_table(directory / ITEM_TABLE)
        self.item_table_.read_ahead()  # as scoring goes through all of it

"""Models that rank by one item x item matrix: scores are the history times the weights."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import FormatError
from recsparse.models.base import Recommender, Scores
from recsparse.tensors import load_tensors, save_tensors

STATE = "item_weights.safetensors"


class ItemItem(Recommender):
    """Base of EASE, SLIM and item-kNN: a user is the history itself and ``scores = X @ B``.

    Attributes:
        item_weights_: ``B``, (I, I) float32 with a zero diagonal, dense or CSR; ``B[j, i]`` is what having ``j`` adds
            to the score of ``i``.
    """

    item_weights_: npt.NDArray[np.float32] | sp.csr_array

    def _fold_in(self, histories: sp.csr_array) -> sp.csr_array:
        return histories

    def scores(self, queries: sp.csr_array) -> Scores:
        """Score every item, (B, I) float32. Cost: O(interactions x weights a row)."""
        product: Any = queries @ self.item_weights_
        if sp.issparse(product):
            product = product.toarray()
        return np.asarray(product, dtype=np.float32)

    def _save_state(self, directory: Path) -> None:
        weights = self.item_weights_
        if isinstance(weights, np.ndarray):
            tensors = {"dense": weights}
        else:
            tensors = {"indptr": weights.indptr, "indices": weights.indices, "data": weights.data}
        save_tensors(tensors, directory / STATE)

    def _load_state(self, directory: Path) -> None:
        tensors = load_tensors(directory / STATE)
        n_items = self.items_.num_rows
        if "dense" in tensors:
            self.item_weights_ = tensors["dense"]
        else:
            parts = (tensors["data"], tensors["indices"], tensors["indptr"])
            self.item_weights_ = sp.csr_array(parts, shape=(n_items, n_items))
        if self.item_weights_.shape != (n_items, n_items):
            raise FormatError(
                f"{directory / STATE} has shape {self.item_weights_.shape}; the model has {n_items} items."
            )

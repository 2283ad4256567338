"""Item-kNN: each item's most similar items, by the users they share."""

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.interactions.interactions import Interactions
from recsparse.models.item_item import ItemItem
from recsparse.models.settings import check_choice, check_number, check_whole

_BLOCK = 1024


class ItemKNN(ItemItem):
    """Score an item by its similarity to the history's items, of which each keeps its ``k`` most similar.

    With ``w`` the weighted matrix, the similarity of items i and j is ``Σ_u w_ui w_uj`` over
    ``||w_i|| ||w_j|| + shrink``. Weighting:

    - ``cosine``: ``w = x``
    - ``tf-idf``: ``w = sqrt(x) idf_u``, users as terms and items as documents: ``idf_u = ln(1 + I / m_u)`` with ``m_u``
      the user's items
    - ``bm25``: ``w = idf_u x (k1 + 1) / (x + k1 (1 - b + b len_i / mean len))`` with
      ``idf_u = ln(1 + (I - m_u + 0.5) / (m_u + 0.5))`` (Robertson and Zaragoza 2009); similarities are
      then plain products

    Cost: O(Σ_u m_u²) time in blocks of items; 8 bytes a kept neighbour.

    Args:
        k: neighbours an item keeps.
        weighting: see above.
        shrink: pulls similarities of rare items towards 0.
        k1: of BM25, how soon repeated values saturate.
        b: of BM25, how much popular items are discounted.

    Attributes:
        item_weights_: (I, I) CSR; column i holds i's neighbours.

    Example:
        >>> model = ItemKNN(k=2).fit(sp.csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
        >>> int(model.scores(model.fold_in(sp.csr_array([[1, 0, 0, 0]]))).argmax())
        1
    """

    kind = "item-knn"
    search_space: ClassVar[dict[str, Any]] = {
        "k": {"low": 10, "high": 1000, "log": True},
        "weighting": ["cosine", "tf-idf", "bm25"],
        "shrink": {"low": 0.0, "high": 100.0},
    }

    def __init__(
        self,
        k: int = 100,
        *,
        weighting: Literal["cosine", "tf-idf", "bm25"] = "cosine",
        shrink: float = 0.0,
        k1: float = 1.2,
        b: float = 0.75,
    ) -> None:
        self.k = k
        self.weighting = weighting
        self.shrink = shrink
        self.k1 = k1
        self.b = b

    def _fit(self, interactions: Interactions) -> None:
        check_whole(self, "k")
        check_choice(self, "weighting", ("cosine", "tf-idf", "bm25"))
        check_number(self, "shrink", "k1", "b", zero=True)
        weighted = sp.csc_array(self._weighted(interactions.matrix))
        norms = np.sqrt(np.asarray(weighted.power(2).sum(axis=0)).ravel())
        by_user = sp.csr_array(weighted)
        blocks = []
        for first in range(0, weighted.shape[1], _BLOCK):
            similar = sp.csr_array(weighted[:, first : first + _BLOCK].T @ by_user)
            rows = np.repeat(np.arange(first, first + similar.shape[0]), np.diff(similar.indptr))
            if self.weighting != "bm25" or self.shrink > 0:
                scale = norms[rows] * norms[similar.indices] if self.weighting != "bm25" else 1.0
                similar.data /= np.maximum(scale + self.shrink, 1e-12)
            similar.data[rows == similar.indices] = 0
            blocks.append(strongest(similar, self.k))
        self.item_weights_ = sp.csr_array(sp.vstack(blocks).T, dtype=np.float32)

    def _weighted(self, matrix: sp.csr_array) -> sp.csr_array:
        n_items = matrix.shape[1]
        own = np.diff(matrix.indptr)
        data: npt.NDArray[Any] = matrix.data.astype(np.float64)
        if self.weighting == "tf-idf":
            data = np.sqrt(np.maximum(data, 0)) * np.repeat(np.log1p(n_items / np.maximum(own, 1)), own)
        elif self.weighting == "bm25":
            length = np.bincount(matrix.indices, weights=data, minlength=n_items)
            idf = np.log1p((n_items - own + 0.5) / (own + 0.5))
            norm = 1 - self.b + self.b * length / max(length.mean(), 1e-12)
            data = np.repeat(idf, own) * data * (self.k1 + 1) / (data + self.k1 * norm[matrix.indices])
        return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def strongest(matrix: sp.csr_array, k: int) -> sp.csr_array:
    """Keep each row's ``k`` entries of largest value above 0; ties go to the lower column.

    >>> strongest(sp.csr_array([[3.0, 1.0, 2.0], [0.0, 5.0, 0.0]]), 2).toarray()
    array([[3., 0., 2.],
           [0., 5., 0.]])
    """
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    rank = np.empty(matrix.nnz, dtype=np.int64)
    rank[order] = np.arange(matrix.nnz) - matrix.indptr[rows[order]]
    keep = (rank < k) & (matrix.data > 0)
    kept = sp.csr_array((matrix.data[keep], (rows[keep], matrix.indices[keep])), shape=matrix.shape)
    kept.sort_indices()
    return kept

"""What cold items are measured against: chance, and features alone."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp

from recsparse.evaluation.features import feature_matrix
from recsparse.interactions.interactions import Interactions
from recsparse.models.base import Recommender, Scores


class Random(Recommender):
    """Rank by chance: the least any figure can be. A user's ranking depends on the history and the seed alone.

    Args:
        random_state: seed.
    """

    kind = "random"

    def __init__(self, random_state: int = 0) -> None:
        self.random_state = random_state

    def _fit(self, interactions: Interactions) -> None:
        pass

    def _fold_in(self, histories: sp.csr_array) -> sp.csr_array:
        return histories

    def scores(self, queries: sp.csr_array) -> Scores:
        """Uniform scores, (B, I) float32."""
        scores = np.empty(queries.shape, dtype=np.float32)
        for row in range(queries.shape[0]):
            history = queries.indices[queries.indptr[row] : queries.indptr[row + 1]]
            scores[row] = np.random.default_rng([self.random_state, *history.tolist()]).random(
                queries.shape[1], dtype=np.float32
            )
        return scores

    def _save_state(self, directory: Path) -> None:
        pass

    def _load_state(self, directory: Path) -> None:
        pass


class ContentKNN(Recommender):
    """Rank by features alone: ``scores = X F Fᵀ``, each item's features of unit length; an item needs no past.

    Items' categorical features are those of :func:`recsparse.evaluation.features.feature_matrix`.

    Example:
        >>> import pyarrow as pa
        >>> items = pa.table({"item_id": [1, 2, 3, 4], "kind": ["war", "war", "love", "love"]})
        >>> train = Interactions(sp.csr_array([[0, 1.0, 1, 0]]), pa.table({"user_id": [7]}), items)
        >>> model = ContentKNN().fit(train)
        >>> model.scores(model.fold_in(sp.csr_array([[0.0, 1, 0, 0]]))).tolist()
        [[1.0, 1.0, 0.0, 0.0]]
    """

    kind = "content-knn"

    def _fit(self, interactions: Interactions) -> None:
        self._load_state(Path())

    def _fold_in(self, histories: sp.csr_array) -> sp.csr_array:
        return sp.csr_array(histories @ self.features_)

    def scores(self, queries: sp.csr_array) -> Scores:
        """Score every item, (B, I) float32."""
        return np.asarray((queries @ self.features_.T).toarray(), dtype=np.float32)

    def _save_state(self, directory: Path) -> None:
        pass

    def _load_state(self, directory: Path) -> None:
        # All there is to learn stands in the items themselves.
        matrix = feature_matrix(self.items_)[0]
        lengths = np.sqrt(np.maximum(np.diff(matrix.indptr), 1)).astype(np.float32)
        self.features_ = sp.csr_array(sp.diags_array(1.0 / lengths) @ matrix)

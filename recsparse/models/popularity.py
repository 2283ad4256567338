"""The same list for everybody: the most popular items."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp

from recsparse.interactions.interactions import Interactions
from recsparse.models.base import Recommender, Scores


class Popularity(Recommender):
    """Rank items by the number of users who have them: ``score(u, i) = |{v : X[v, i] is stored}|``.

    Deterministic and without settings, so its figures prove an evaluator exactly; and the least a model must beat.

    Example:
        >>> model = Popularity().fit(sp.csr_array([[1, 1, 0], [0, 1, 0]]))
        >>> model.scores(model.fold_in(sp.csr_array([[0, 0, 1]])))
        array([[1., 2., 0.]], dtype=float32)
    """

    kind = "popularity"

    def _fit(self, interactions: Interactions) -> None:
        pass

    def _fold_in(self, histories: sp.csr_array) -> sp.csr_array:
        return histories

    def scores(self, queries: sp.csr_array) -> Scores:
        """Repeat the popularity for every query, (B, I) float32."""
        return np.tile(self.popularity_, (queries.shape[0], 1))

    def _save_state(self, directory: Path) -> None:
        pass

    def _load_state(self, directory: Path) -> None:
        pass

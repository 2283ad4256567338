"""MF whose rows are pulled towards what their features predict, so that cold items and users have a vector."""

from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from recsparse.interactions.interactions import Interactions, Rows
from recsparse.kernels.sgd import Side
from recsparse.models.base import Queries
from recsparse.models.feature_prior import Regression, WithFeatures, predict
from recsparse.models.mf import MF, Kepts
from recsparse.models.side import Floats, sparse
from recsparse.sparsity import Recipe
from recsparse.tables import Mask


class FeatureMF(WithFeatures, MF):
    """:class:`MF` with features: ``v_i = W f_i + residual``, and the like for users.

    The decay of a sample pulls its rows towards what their features f predict instead of towards zero,

        ½ reg ||v_i - W f_i||²

    and the same with Z and g_u for users. Before every epoch W and Z are fitted to the rows by ridge regression, each
    row counting as often as samples touch it. An item that nobody has in training, or a user without a history, gets
    its prediction as its vector, and is no evidence for the others: such items are not drawn as uniform negatives.
    Users with a history that were not trained on are folded in by it alone. Features are those of the tables of users
    and items (:class:`recsparse.models.features.Encoding`) and a constant.

    Args:
        dim: columns, D.
        loss: see :class:`MF`, also for what values are to it.
        negatives: see :class:`MF`.
        n_negatives: for each known pair.
        negative_weight: of the squared loss.
        optimiser: "sgd", "adagrad" or "adam".
        learning_rate: of the optimiser.
        reg: pull on the rows a sample touches.
        feature_reg: ridge of W and Z, in rows: it weighs as much as so many rows of average weight.
        epochs: at most.
        patience: with validation, stop after so many epochs without a better metric; None never stops.
        metric: of validation.
        recipe: how the item table becomes sparse; cold items are pruned like others.
        user_recipe: how the user table becomes sparse.
        value_type: how the item table's values are stored.
        fold_in_alpha0: weight of unobserved pairs when a new user is folded in.
        fold_in_reg: ridge of that fold-in.
        layers: see :class:`MF`; W is fitted to the averaged rows.
        init_std: standard deviation of the initial entries times sqrt(dim).
        random_state: seed.
        n_jobs: threads; None and -1 mean all cores.

    Attributes:
        item_weights_: Wᵀ, (1 + item features, D) float32; the first row is the constant's.
        user_weights_: Zᵀ, (1 + user features, D) float32.
        item_encoding_: what the item features are.
        user_encoding_: what the user features are.

    Cost of an epoch: that of MF, and O(F² D + nnz(features) D) for F features; O(F³) once.

    Example:
        >>> items = pa.table({"item_id": [0, 1, 2, 3, 4], "kind": ["a", "a", "b", "b", "a"]})
        >>> data = Interactions.from_csr([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0]])
        >>> model = FeatureMF(dim=2, n_jobs=1).fit(Interactions(data.matrix, data.users, items))
        >>> scores = model.scores(model.fold_in(data.matrix))
        >>> bool(scores[0, 4] > scores[2, 4])  # nobody has item 4, which is of kind a
        True
    """

    kind = "feature-mf"
    search_space: ClassVar[dict[str, Any]] = MF.search_space | {"feature_reg": {"low": 0.1, "high": 100.0, "log": True}}

    _of_an_epoch = (*MF._of_an_epoch, "user_weights_", "item_weights_")

    def __init__(
        self,
        dim: int = 64,
        *,
        loss: Literal["bpr", "softmax", "squared"] = "bpr",
        negatives: Literal["uniform", "popularity", "in-batch"] = "uniform",
        n_negatives: int = 1,
        negative_weight: float = 1.0,
        optimiser: Literal["sgd", "adagrad", "adam"] = "sgd",
        learning_rate: float = 0.05,
        reg: float = 0.01,
        feature_reg: float = 1.0,
        epochs: int = 100,
        patience: int | None = 5,
        metric: str = "ndcg@20",
        recipe: Recipe | dict[str, Any] | None = None,
        user_recipe: Recipe | dict[str, Any] | Literal["shared"] | None = None,
        value_type: str = "fp32",
        fold_in_alpha0: float = 0.1,
        fold_in_reg: float = 1.0,
        layers: int = 0,
        init_std: float = 0.1,
        random_state: int = 0,
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(
            dim, loss=loss, negatives=negatives, n_negatives=n_negatives, negative_weight=negative_weight,
            optimiser=optimiser, learning_rate=learning_rate, reg=reg, epochs=epochs, patience=patience, metric=metric,
            recipe=recipe, user_recipe=user_recipe, value_type=value_type, fold_in_alpha0=fold_in_alpha0,
            fold_in_reg=fold_in_reg, layers=layers, init_std=init_std, random_state=random_state, n_jobs=n_jobs,
        )  # fmt: skip
        self.feature_reg = feature_reg

    def fold_in(self, histories: Interactions | sp.csr_array) -> Queries:
        """Represent users by their histories, or, where these are empty, by the features that Interactions bring."""
        matrix = self._histories(histories)
        users = histories.users if isinstance(histories, Interactions) else None
        return self._represent(np.full(matrix.shape[0], -1), matrix, users)

    def _represent(self, rows: Rows, histories: sp.csr_array, users: pa.Table | None = None) -> Floats:
        queries = super()._represent(rows, histories, users)
        empty = np.flatnonzero((rows < 0) & (np.diff(histories.indptr) == 0))
        queries[empty] = self._user_prior(None if users is None else users.take(pa.array(empty)), len(empty))
        return queries

    def _fit(self, interactions: Interactions) -> None:
        self._check(interactions)
        users, items = self._designs(interactions)
        lengths = np.diff(interactions.matrix.indptr)
        drawn = interactions.nnz * self.n_negatives / np.count_nonzero(self.popularity_)
        self._regressions = (
            Regression.of(users, lengths > 0, lengths, self.feature_reg),
            Regression.of(items, self.popularity_ > 0, self.popularity_ + drawn, self.feature_reg),
        )
        try:
            super()._fit(interactions)
        finally:
            del self._regressions

    def _check(self, interactions: Interactions) -> None:
        super()._check(interactions)
        self._check_features()

    def _drawable(self) -> npt.NDArray[np.int32]:
        return np.flatnonzero(self.popularity_).astype(np.int32)

    def _with_priors(self, users: Side, items: Side) -> tuple[Side, Side]:
        sides = []
        for side, regression in zip((users, items), self._regressions, strict=True):
            rows = sparse(side)
            prior = regression.predict(rows)
            cold = np.flatnonzero(~regression.known)
            if isinstance(rows, np.ndarray):
                rows[cold] = prior[cold]
            else:  # over the side's own numbers
                for row in cold:
                    own = slice(rows.indptr[row], rows.indptr[row + 1])
                    rows.data[own] = prior[row, rows.indices[own]]
            sides.append(side._replace(prior=prior))
        return sides[0], sides[1]

    def _store(self, users: Floats, items: Floats, kept: Kepts, epoch: int) -> None:
        users, items = (_whole(numbers, own) for numbers, own in zip((users, items), kept, strict=True))
        of_users, of_items = self._regressions
        self.user_weights_, self.item_weights_ = of_users.weights(users), of_items.weights(items)
        for rows, weights, regression, own in (
            (users, self.user_weights_, of_users, kept[0]),
            (items, self.item_weights_, of_items, kept[1]),
        ):
            rows[~regression.known] = predict(regression.design[~regression.known], weights)
            if own is not None:
                rows[~own.to_dense()] = 0
        super()._store(users, items, kept, epoch)


def _whole(numbers: Floats, kept: Mask | None) -> Floats:
    """A copy of a table, (R, D) with zeros where nothing is kept, from that or from the numbers of what is."""
    if kept is None or numbers.ndim == 2:
        return numbers.copy()
    rows = np.zeros(kept.shape, dtype=np.float32)
    rows[kept.to_dense()] = numbers
    return rows

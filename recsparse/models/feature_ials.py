"""iALS whose rows are pulled towards what their features predict, so that cold items and users have a vector."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from recsparse.interactions.interactions import Interactions, Rows
from recsparse.models.alternation import Learned
from recsparse.models.base import Queries
from recsparse.models.feature_prior import Regression, WithFeatures, predict
from recsparse.models.ials import IALS
from recsparse.models.least_squares import Dense, Factors, Sides
from recsparse.sparsity import Recipe
from recsparse.tables import Mask


class FeatureIALS(WithFeatures, IALS):
    """:class:`IALS` with features: ``v_i = W f_i + residual``, and the like for users.

    The regularisation pulls a row towards what its features f predict instead of towards zero, and what they predict is
    learned with it:

        reg_i ||v_i - W f_i||² + feature_reg mean(reg) ||W||²

    and the same with Z and g_u for users. Given the rows, W is a ridge regression, solved in closed form before every
    half-step; given W, each row is solved as in IALS. An item that nobody has in training, or a user without a history,
    gets its prediction as its vector, and is no evidence for the others (its pairs are left out of the loss). Features
    are those of the tables of users and items (:class:`recsparse.models.features.Encoding`) and a constant.

    Args:
        dim: columns of the item table, D.
        epochs: at most so many alternations.
        alpha0: weight of unobserved pairs.
        reg: strength of the regularisation.
        nu: its dependence on frequency.
        degree_power: see :class:`IALS`.
        feature_reg: ridge of W and Z, in rows: it weighs as much as so many rows of average regularisation.
        solver: see :class:`IALS`.
        block: see :class:`IALS`.
        recipe: how the item table becomes sparse; cold items are pruned like others.
        value_type: how the item table's values are stored.
        init_std: standard deviation of the initial factors times sqrt(dim).
        patience: with validation, stop after so many epochs without a better metric.
        metric: of validation.
        random_state: seed of the initial factors.
        n_jobs: threads; None and -1 mean all cores.

    Attributes:
        item_weights_: Wᵀ, (1 + item features, D) float32; the first row is the constant's.
        user_weights_: Zᵀ, (1 + user features, D) float32.
        item_encoding_: what the item features are.
        user_encoding_: what the user features are.

    Cost of an epoch: that of IALS, and O(F² D + nnz(features) D) for F features; O(F³) once.

    Example:
        >>> items = pa.table({"item_id": [0, 1, 2, 3, 4], "kind": ["a", "a", "b", "b", "a"]})
        >>> data = Interactions.from_csr([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0]])
        >>> model = FeatureIALS(dim=2, feature_reg=0.1).fit(Interactions(data.matrix, data.users, items))
        >>> scores = model.scores(model.fold_in(data.matrix))
        >>> bool(scores[0, 4] > scores[2, 4])  # nobody has item 4, which is of kind a
        True
    """

    kind = "feature-ials"
    search_space: ClassVar[dict[str, Any]] = IALS.search_space | {
        "feature_reg": {"low": 0.1, "high": 100.0, "log": True}
    }

    def __init__(
        self,
        dim: int = 64,
        *,
        epochs: int = 10,
        alpha0: float = 0.1,
        reg: float = 0.01,
        nu: float = 1.0,
        degree_power: float = 0.0,
        feature_reg: float = 1.0,
        solver: Literal["cholesky", "cg", "block"] = "cholesky",
        block: int = 64,
        recipe: Recipe | dict[str, Any] | None = None,
        value_type: str = "fp32",
        init_std: float = 0.1,
        patience: int | None = 5,
        metric: str = "ndcg@20",
        random_state: int = 0,
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(
            dim, epochs=epochs, alpha0=alpha0, reg=reg, nu=nu, degree_power=degree_power, solver=solver, block=block,
            recipe=recipe, value_type=value_type, init_std=init_std, patience=patience, metric=metric,
            random_state=random_state, n_jobs=n_jobs,
        )  # fmt: skip
        self.feature_reg = feature_reg

    def fold_in(self, histories: Interactions | sp.csr_array) -> Queries:
        """Represent users by their histories and, where Interactions are given, by the features of its users."""
        users = histories.users if isinstance(histories, Interactions) else None
        matrix = self._histories(histories)
        return self._solve(matrix, self._user_prior(users, matrix.shape[0]))

    def _represent(self, rows: Rows, histories: sp.csr_array, users: pa.Table | None = None) -> Queries:
        """Represent users; those of the training data by the features they had there."""
        prior = self._user_prior(users, len(rows))
        prior[rows >= 0] = self.predict_users(self.users_.take(pa.array(rows[rows >= 0])))
        return self._solve(histories, prior)

    def _solve(self, histories: sp.csr_array, prior: Dense) -> Dense:
        factors, shared, _ = self._prepared_folding()
        return self._loss().solve(self._weighted(histories), factors, shared, prior)

    def _fold_in(self, histories: sp.csr_array) -> Dense:
        return self._solve(histories, self._user_prior(None, histories.shape[0]))

    def _shared_of(self, factors: Factors) -> Dense:
        return self._loss().shared(factors[self.popularity_ > 0])

    def _sides(self, interactions: Interactions) -> Sides:
        plain = super()._sides(interactions)
        users, items = (
            Regression.of(design, np.diff(side.indptr) > 0, plain.loss.ridge(side), self.feature_reg)
            for design, side in zip(self._designs(interactions), (plain.by_user, plain.by_item), strict=True)
        )
        return FeatureSides(plain.by_user, plain.by_item, plain.loss, users, items)

    def _finish(self, sides: Sides, learned: Learned, kept: Mask | None) -> None:
        users, items, _ = learned
        assert isinstance(sides, FeatureSides)  # noqa: S101 (made by _sides)
        self.user_weights_ = sides.users.weights(users)
        self.item_weights_ = sides.items.weights(items)
        cold = ~sides.items.known
        values = items.copy() if isinstance(items, np.ndarray) else items.toarray()
        values[cold] = predict(sides.items.design[cold], self.item_weights_)
        if kept is not None:
            values[~kept.to_dense()] = 0
        self._pack(sides, values, kept)

    def _check(self, interactions: Interactions) -> None:
        super()._check(interactions)
        self._check_features()


@dataclass(frozen=True)
class FeatureSides(Sides):
    """Sides whose rows have priors; those without interactions do not count for the other side."""

    users: Regression
    items: Regression

    def shared_of_users(self, users: Dense) -> Dense:
        """G of the users that have interactions."""
        return self.loss.shared(users[self.users.known])

    def shared_of_items(self, items: Factors) -> Dense:
        """G of the items that have interactions."""
        return self.loss.shared(items[self.items.known])

    def user_prior(self, users: Dense) -> Dense:
        """What features say of users."""
        return self.users.predict(users)

    def item_prior(self, items: Factors) -> Dense:
        """What features say of items."""
        return self.items.predict(items)

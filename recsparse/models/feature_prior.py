"""What models with features share: rows predicted from features by ridge regression, for users and items alike."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.linalg
import scipy.sparse as sp
from pydantic import ValidationError
from sklearn.utils.validation import check_is_fitted

from recsparse.errors import DataError, FormatError
from recsparse.interactions.interactions import Interactions
from recsparse.models.factors import FactorModel
from recsparse.models.features import Encoding
from recsparse.models.least_squares import Dense, Factors
from recsparse.models.settings import check_number
from recsparse.parallel import single_threaded_blas
from recsparse.tensors import load_tensors, save_tensors

WEIGHTS = "features.safetensors"
ENCODINGS = {"users": "user_features.json", "items": "item_features.json"}


class WithFeatures(FactorModel):
    """A factor model whose rows are pulled towards what their features predict; it comes first among the bases.

    Attributes:
        item_weights_: Wᵀ, (1 + item features, D) float32; the first row is the constant's.
        user_weights_: Zᵀ, (1 + user features, D) float32.
        item_encoding_: what the item features are.
        user_encoding_: what the user features are.
    """

    feature_reg: float
    item_weights_: Dense
    user_weights_: Dense
    item_encoding_: Encoding
    user_encoding_: Encoding

    def predict_items(self, items: pa.Table) -> Dense:
        """What features alone say of any items, also of such as are not in the catalogue: (N, D) float32.

        Args:
            items: a table with the feature columns of training; what is missing or unknown counts as average.
        """
        check_is_fitted(self, "item_weights_")
        return predict(design_of(self.item_encoding_, items), self.item_weights_)

    def predict_users(self, users: pa.Table) -> Dense:
        """What features alone say of any users: (N, D) float32."""
        check_is_fitted(self, "user_weights_")
        return predict(design_of(self.user_encoding_, users), self.user_weights_)

    def unknown(self, histories: sp.csr_array, users: pa.Table | None = None) -> npt.NDArray[np.bool_]:
        """Of whom nothing is known, (B,): who has a feature that training knew is answered by what it predicts."""
        unknown = super().unknown(histories, users)
        empty = np.flatnonzero(unknown)
        if users is not None and len(empty):
            unknown[empty] = np.diff(self.user_encoding_.encode(users.take(pa.array(empty))).indptr) == 0
        return unknown

    def _user_prior(self, users: pa.Table | None, n_users: int) -> Dense:
        return np.repeat(self.user_weights_[:1], n_users, axis=0) if users is None else self.predict_users(users)

    def _designs(self, interactions: Interactions) -> tuple[sp.csr_array, sp.csr_array]:
        """Learn what the features of users and items are, and encode them."""
        self.user_encoding_, self.item_encoding_ = Encoding.of(interactions.users), Encoding.of(interactions.items)
        users = design_of(self.user_encoding_, interactions.users)
        return users, design_of(self.item_encoding_, interactions.items)

    def _learned_from(self, interactions: Interactions) -> tuple[sp.csr_array, ...]:
        return (interactions.matrix, *self._designs(interactions))

    def _check_features(self) -> None:
        check_number(self, "feature_reg")

    def _save_state(self, directory: Path) -> None:
        super()._save_state(directory)
        save_tensors({"users": self.user_weights_, "items": self.item_weights_}, directory / WEIGHTS)
        for name, encoding in (("users", self.user_encoding_), ("items", self.item_encoding_)):
            (directory / ENCODINGS[name]).write_text(encoding.model_dump_json(indent=1))

    def _load_state(self, directory: Path) -> None:
        super()._load_state(directory)
        try:
            weights = load_tensors(directory / WEIGHTS, "users", "items")
            self.user_weights_, self.item_weights_ = weights["users"], weights["items"]
            self.user_encoding_, self.item_encoding_ = (
                Encoding.model_validate_json((directory / ENCODINGS[name]).read_text()) for name in ("users", "items")
            )
        except (OSError, ValidationError) as error:
            raise FormatError(f"{directory}'s features are damaged ({error!r}); save the model again.") from error


@dataclass(frozen=True)
class Regression:
    """Rows from features, by ridge regression weighted as the rows are regularised.

    Attributes:
        design: (R, 1 + F), a constant and the features.
        known: rows that have interactions, (R,); only they are learned from.
        ridge: their weights, (R,), zero for all others.
        solve: of the normal equations.
    """

    design: sp.csr_array
    known: npt.NDArray[np.bool_]
    ridge: npt.NDArray[np.float64]
    solve: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] = field(repr=False)

    @classmethod
    def of(cls, design: sp.csr_array, known: npt.NDArray[np.bool_], counts_as: npt.ArrayLike, strength: float) -> Self:
        """Prepare. Known rows weigh ``counts_as`` (R,); ``strength`` is of W's ridge, in rows of average weight."""
        ridge = np.where(known, np.asarray(counts_as, dtype=np.float64), 0.0)
        normal = (design.T @ (design * ridge[:, None])).toarray().astype(np.float64)
        normal[np.diag_indices_from(normal)] += strength * ridge[known].mean()
        if not np.isfinite(normal).all():
            raise DataError(
                f"The values of a user or of an item sum to {ridge.max()} in float32, too much to learn from features; "
                "scale them."
            )
        with single_threaded_blas():
            factor = scipy.linalg.cho_factor(normal)
        # rows that have diverged give weights that have
        return cls(design, known, ridge, lambda right: scipy.linalg.cho_solve(factor, right, check_finite=False))

    def weights(self, rows: Factors) -> Dense:
        """Wᵀ = (Fᵀ R F + λ I)⁻¹ Fᵀ R V, (1 + F, D)."""
        right = self.design.T @ (rows * self.ridge[:, None])
        dense = right if isinstance(right, np.ndarray) else right.toarray()
        with single_threaded_blas():
            return np.ascontiguousarray(self.solve(dense.astype(np.float64)), dtype=np.float32)

    def predict(self, rows: Factors) -> Dense:
        """What the features say of every row, once fitted to the rows."""
        return predict(self.design, self.weights(rows))


def design_of(encoding: Encoding, table: pa.Table) -> sp.csr_array:
    """A constant and the features, (N, 1 + F)."""
    constant = sp.csr_array(np.ones((table.num_rows, 1), dtype=np.float32))
    return sp.csr_array(sp.hstack([constant, encoding.encode(table)], format="csr"))


def predict(design: sp.csr_array, weights: Dense) -> Dense:
    """What the features of a design say."""
    return np.ascontiguousarray(design @ weights, dtype=np.float32)

"""How far predicted ratings are off, for models whose scores are ratings."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsparse.evaluation.evaluate import check_not_fitted_on
from recsparse.evaluation.ranking import score_blocks
from recsparse.interactions.split import Holdout
from recsparse.models.base import Recommender


@dataclass(frozen=True)
class RatingErrors:
    """Errors of predicted ratings, in the ratings' own unit.

    Attributes:
        rmse: ``sqrt(mean of (score - rating)^2)`` over all target ratings.
        mae: ``mean of |score - rating|`` over the same.
        ratings: how many there are.
        users: how many users gave them.
    """

    rmse: float
    mae: float
    ratings: int
    users: int


def rating_errors(model: Recommender, holdout: Holdout) -> RatingErrors:
    """Compare scores with the target's values; only sensible for a model trained to predict them.

    Raises:
        DataError: the model was fitted on some of the targets.
    """
    check_not_fitted_on(model, holdout)
    target = holdout.target.with_items(model.items_).matrix
    errors = np.empty(target.nnz, dtype=np.float64)
    for start, stop, scores in score_blocks(model, holdout.history):
        part = slice(target.indptr[start], target.indptr[stop])
        users = np.repeat(np.arange(stop - start), np.diff(target.indptr[start : stop + 1]))
        errors[part] = scores[users, target.indices[part]].astype(np.float64) - target.data[part]
    return RatingErrors(_root_mean_square(errors), float(np.abs(errors).mean()), len(errors), _users(target.indptr))


def _root_mean_square(errors: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt((errors**2).mean()))


def _users(indptr: npt.NDArray[np.integer]) -> int:
    return int((np.diff(indptr) > 0).sum())

"""What besides its mean accuracy a row of the report says of a model: by groups, and beyond accuracy."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsparse.evaluation import beyond
from recsparse.evaluation.evaluate import Evaluation
from recsparse.evaluation.features import feature_matrix
from recsparse.evaluation.groups import by_item_group, by_user_group, popularity_groups
from recsparse.evaluation.intervals import Summary
from recsparse.evaluation.ranking import best_items
from recsparse.interactions.interactions import ITEM, USER
from recsparse.interactions.split import Holdout
from recsparse.models.base import Recommender
from recsparse.models.factors import FactorModel
from recsparse.report.kept import NOTHING, Kept
from recsparse.report.results import Measured


@dataclass(frozen=True)
class DenseReference:
    """What other models' lists are compared with, computed once for all of them.

    Attributes:
        lists: the dense model's, (U, k).
        vectors: its item table, (I, D).
    """

    lists: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.float32]

    @classmethod
    def of(cls, model: FactorModel, holdout: Holdout, k: int = 20) -> Self:
        """Recommend to the holdout's users."""
        return cls(best_items(model, holdout.history, k), model.item_table_.to_dense())


def effects(
    model: Recommender, holdout: Holdout, evaluation: Evaluation, *, dense: DenseReference | None = None, k: int = 20,
    kept: Kept = NOTHING,
) -> dict[str, Any]:  # fmt: skip
    """The fields ``item_groups``, ``user_groups`` and ``beyond`` of a :class:`recsparse.report.results.Row`.

    Args:
        model: fitted.
        holdout: the test users.
        evaluation: of the model on them.
        dense: of the best dense model, for agreement with its lists and for distances by its embeddings.
        k: length of the lists that ``beyond`` describes.
        kept: where these lists go, ``lists``.
    """
    groups = popularity_groups(model.popularity_)
    items = by_item_group(evaluation, model.items_, groups)
    return {
        "item_groups": {name: _measured(summaries) for name, summaries in items.items()},
        "user_groups": {name: _measured(summaries) for name, summaries in by_user_group(evaluation).items()},
        "beyond": beyond_accuracy(model, holdout, dense=dense, k=k, kept=kept),
    }


def beyond_accuracy(
    model: Recommender, holdout: Holdout, *, dense: DenseReference | None = None, k: int = 20, kept: Kept = NOTHING
) -> dict[str, float]:
    """Each figure of :mod:`recsparse.evaluation.beyond`, means over users where it is of single lists, by ``name@k``.

    Those of features need items with categorical features, those of embeddings and agreement need ``dense``.
    """
    lists = best_items(model, holdout.history, k)
    kept.columns("lists", {USER: holdout.history.user_ids, "items": lists_of(lists, model.items_)})
    history = holdout.history.with_items(model.items_).matrix
    n_users, n_items = model.history_.shape
    found = {
        "coverage": beyond.coverage(lists, n_items),
        "gini": beyond.gini(lists, n_items),
        "entropy": beyond.exposure_entropy(lists, n_items),
        "novelty": _mean(beyond.novelty(lists, model.popularity_, n_users)),
        "popularity lift": _mean(beyond.popularity_lift(lists, model.popularity_, history)),
    }
    features, names = feature_matrix(model.items_)
    if names:
        found["calibration error"] = _mean(beyond.calibration_error(lists, features, history))
        found["distance by features"] = _mean(beyond.intra_list_distance(lists, features))
    if dense is not None:
        found["distance by embeddings"] = _mean(beyond.intra_list_distance(lists, dense.vectors))
        found["overlap with dense"] = _mean(beyond.overlap(lists, dense.lists))
        found["RBO with dense"] = _mean(beyond.rank_biased_overlap(lists, dense.lists))
    return {f"{name}@{k}": value for name, value in found.items()}


def lists_of(lists: npt.NDArray[np.int32], items: pa.Table) -> list[list[Any]]:
    """Lists of rows as lists of ids, without the -1 of lists that end before."""
    ids = np.asarray(items[ITEM].to_pylist())
    return [ids[row[row >= 0]].tolist() for row in lists]


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


def _measured(summaries: dict[str, Summary]) -> dict[str, Measured]:
    return {metric: Measured.of(summary) for metric, summary in summaries.items()}

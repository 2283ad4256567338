"""Items without a past: how they are found at first, and how fast they warm up."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from recsparse.evaluation.evaluate import Evaluation, evaluate
from recsparse.evaluation.few_shot import first_items
from recsparse.evaluation.mixing import merge
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.models.base import Recommender

WARM_UP = (0, 1, 2, 5, 10, 20)


def cold_items(model: Recommender) -> npt.NDArray[np.bool_]:
    """The items no training user has, (I,)."""
    return np.asarray(model.popularity_ == 0)


def evaluate_cold_items(
    model: Recommender,
    holdout: Holdout,
    metrics: Sequence[str] = ("ndcg@20", "recall@20"),
    *,
    against: str = "cold",
    name: str | None = None,
    cold: npt.NDArray[np.bool_] | None = None,
) -> Evaluation:
    """Measure only targets among the cold items.

    Args:
        model: fitted.
        holdout: of the protocol ``cold-items``, or any in which some targets are cold.
        metrics: see :mod:`recsparse.evaluation.metrics`.
        against: ``"cold"`` ranks the cold items among themselves (which of the new ones fits whom?); ``"all"`` among
            the whole catalogue (does a new one ever get through?).
        name: the model's label.
        cold: which items count as cold, (I,); those without training interactions by default.
    """
    cold = cold_items(model) if cold is None else cold
    if against == "cold":
        return evaluate(model, holdout, metrics, name=name, among=cold)
    asked = holdout.target.with_items(model.items_)
    only = Holdout(holdout.history, asked.select_entries(cold[asked.matrix.indices]))
    return evaluate(model, only, metrics, name=name)


def warm_up_curve(
    model: Recommender,
    train: Interactions,
    arriving: Interactions,
    holdout: Holdout,
    counts: Sequence[int] = WARM_UP,
    metrics: Sequence[str] = ("ndcg@20",),
    *,
    name: str | None = None,
    seed: int = 0,
) -> dict[int, Evaluation]:
    """Evaluate the new items among themselves after each has gathered its first ``n`` interactions, for each ``n``.

    Args:
        model: an estimator; it is cloned and fitted anew for every count.
        train: training data in which the new items have no interactions.
        arriving: interactions with the new items, by any users; the first ``n`` of each item by time (a seeded sample
            where there are no times) join the training data. An item with fewer brings what it has.
        holdout: users whose targets are new items; their own interactions must not be in ``arriving``.
        counts: interactions an item has gathered; 0 is cold.
        metrics: see :mod:`recsparse.evaluation.metrics`.
        name: the model's label.
        seed: of the sample.
    """
    arriving = arriving.with_items(train.items)
    new = np.bincount(arriving.matrix.indices, minlength=train.shape[1]) > 0
    curve = {}
    for count in counts:
        fitted = clone(model).fit(merge(train, first_of_items(arriving, count, seed=seed)))
        curve[count] = evaluate(fitted, holdout, metrics, name=name, among=new)
    return curve


def arrivals(train: Interactions, holdout: Holdout, *, seed: int = 0) -> tuple[Interactions, Holdout]:
    """Cut the users of a cold-items holdout in two: half bring the new items their first interactions, half are asked.

    Only users of ``train`` bring any, so that nobody is new to the model but the items.

    Returns:
        What arrives, and the holdout of the users who are measured.
    """
    chance = np.random.default_rng(seed).permutation(holdout.target.shape[0])
    asked, bring = np.sort(chance[::2]), np.sort(chance[1::2])
    bring = bring[train.user_rows(holdout.target.user_ids[bring]) >= 0]
    measured = Holdout(holdout.history.select_users(asked), holdout.target.select_users(asked))
    return holdout.target.select_users(bring), measured


def first_of_items(arriving: Interactions, count: int, *, seed: int = 0) -> Interactions:
    """Each item's first ``count`` interactions by time, or a seeded sample where there are no times."""
    by_item = arriving.matrix.tocoo()
    order = np.lexsort((by_item.row, by_item.col))
    times = None if arriving.times is None else arriving.times[order]
    turned = Interactions.from_csr(arriving.matrix.T)
    first = first_items(Interactions(turned.matrix, turned.users, turned.items, times), count, seed=seed)
    keep = first.matrix.T.tocsr()[by_item.row, by_item.col]
    return arriving.select_entries(np.asarray(keep).ravel() != 0)

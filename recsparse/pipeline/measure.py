"""What a saved model does for the test users: whole, by history length, and with new items."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import scipy.sparse as sp

from recsparse.config import Evaluation as Wanted
from recsparse.evaluation import Evaluation, evaluate, few_shot_curve
from recsparse.evaluation.cold_items import arrivals, evaluate_cold_items, warm_up_curve
from recsparse.evaluation.few_shot import without_features
from recsparse.interactions import Holdout, Split
from recsparse.models import Recommender

_POINT = re.compile(r"(history|fold-in|warm-up)-([0-9]+)")


@dataclass(frozen=True)
class RowEvaluations:
    """The evaluations behind one row of the report, a Parquet file each with every user's values.

    Attributes:
        test: ``test.parquet``, on the test users.
        few_shot: ``history-K.parquet``, with only the first K items of each history.
        fold_in: ``fold-in-K.parquet``, the same with users' features withheld, of models that know some.
        cold_items: ``cold-items.parquet``, of the protocol cold-items: new items among themselves.
        warm_up: ``warm-up-N.parquet``, the same for half of the users, after each new item has gathered N interactions.
    """

    test: Evaluation
    few_shot: dict[int, Evaluation] = field(default_factory=dict)
    fold_in: dict[int, Evaluation] = field(default_factory=dict)
    cold_items: Evaluation | None = None
    warm_up: dict[int, Evaluation] = field(default_factory=dict)

    def save(self, directory: Path) -> None:
        """Write a file each."""
        self.test.save(directory / "test.parquet")
        if self.cold_items is not None:
            self.cold_items.save(directory / "cold-items.parquet")
        for name, curve in (("history", self.few_shot), ("fold-in", self.fold_in), ("warm-up", self.warm_up)):
            for at, each in curve.items():
                each.save(directory / f"{name}-{at}.parquet")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote."""
        curves: dict[str, dict[int, Evaluation]] = {"history": {}, "fold-in": {}, "warm-up": {}}
        for file in directory.glob("*.parquet"):
            if match := _POINT.fullmatch(file.stem):
                curves[match[1]][int(match[2])] = Evaluation.load(file)
        ascending = {name: dict(sorted(curve.items())) for name, curve in curves.items()}
        cold = directory / "cold-items.parquet"
        return cls(
            Evaluation.load(directory / "test.parquet"), ascending["history"], ascending["fold-in"],
            Evaluation.load(cold) if cold.exists() else None, ascending["warm-up"],
        )  # fmt: skip


def measure(model: Recommender, split: Split, wanted: Wanted, label: str) -> RowEvaluations:
    """Evaluate a fitted model in every way that the pipeline file asks for."""
    test, seed, headline = split.test, wanted.seed, [wanted.headline]
    few_shot = few_shot_curve(model, test, wanted.few_shot, headline, name=label, seed=seed)
    fold_in = {}
    if wanted.few_shot and _knows_features(model, test):
        bare = Holdout(without_features(test.history), test.target)
        fold_in = few_shot_curve(model, bare, wanted.few_shot, headline, name=f"{label}, history alone", seed=seed)
    cold, warm_up = None, {}
    if split.about["protocol"] == "cold-items":
        cold = evaluate_cold_items(model, test, wanted.metrics, name=label)
        if wanted.warm_up:
            arriving, asked = arrivals(split.train, test, seed=seed)
            warm_up = warm_up_curve(
                model, split.train, arriving, asked, wanted.warm_up, headline, name=label, seed=seed
            )
    return RowEvaluations(
        evaluate(model, test, wanted.metrics, name=label, seed=seed), few_shot, fold_in, cold, warm_up
    )


def _knows_features(model: Recommender, holdout: Holdout) -> bool:
    """Whether some test user's features say something to the model."""
    nothing = sp.csr_array(holdout.history.shape, dtype="float32")
    return not model.unknown(nothing, holdout.history.users).all()

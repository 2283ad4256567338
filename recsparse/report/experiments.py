"""The claims that take an experiment: robustness, over-fitting, cold start, diversity, interpretability.

A verdict is "holds" or "does not hold" only where a 95 % interval leaves zero out; otherwise the claim is undecided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from recsparse.errors import DataError
from recsparse.evaluation import beyond
from recsparse.evaluation.evaluate import evaluate
from recsparse.evaluation.features import feature_matrix
from recsparse.evaluation.few_shot import few_shot_curve
from recsparse.evaluation.interpretability import interpret
from recsparse.evaluation.intervals import Summary, summarise
from recsparse.evaluation.ranking import best_items
from recsparse.evaluation.robustness import NOISE, noise_curve, recalled
from recsparse.interactions.interactions import USER
from recsparse.interactions.split import Split
from recsparse.models.factors import FactorModel
from recsparse.report.effects import lists_of
from recsparse.report.kept import NOTHING, Kept
from recsparse.report.results import Claim
from recsparse.report.words import metric_name, percent, signed

PerUser = npt.NDArray[np.float64]
Verdict = Literal["holds", "does not hold", "undecided"]
SHUFFLES = 200
"""Of the items' features, the control of interpretability."""


@dataclass(frozen=True)
class Pair:
    """A sparse model and the best dense one, both fitted on the training part of one split.

    Attributes:
        sparse: the sparse model.
        dense: the dense model.
        split: what both were fitted on and are measured on.
        metric: the headline metric.
    """

    sparse: FactorModel
    dense: FactorModel
    split: Split
    metric: str


def claims_from_experiments(
    pair: Pair, *, noise: Sequence[float] = NOISE, seeds: Sequence[int] = (0, 1, 2), kept: Kept = NOTHING
) -> list[Claim]:
    """Every experiment; interpretability only where the items have features. A file each is ``kept``, a line a user.

    Cost: ``2 x (1 + (len(noise) - 1) x len(seeds))`` fits.
    """
    found = [
        robustness(pair, noise, seeds, kept=kept),
        over_fitting(pair, kept=kept),
        cold_start(pair, kept=kept),
        diversity(pair, kept=kept),
    ]
    if feature_matrix(pair.dense.items_)[1]:
        found.append(interpretability(pair, kept=kept))
    return found


def robustness(
    pair: Pair, noise: Sequence[float] = NOISE, seeds: Sequence[int] = (0, 1, 2), *, kept: Kept = NOTHING
) -> Claim:
    """How much less a user loses with the sparse model when random interactions are added to the training data."""
    curves = noise_curve(
        {"sparse": pair.sparse, "dense": pair.dense},
        pair.split,
        [pair.metric],
        shares=sorted({0.0, *noise}),
        seeds=seeds,
    )
    noisy = [share for share in curves["sparse"] if share > 0]
    if not noisy:
        raise DataError(f"The shares of noise are {list(noise)}; name one above 0.")
    values = {label: {at: one.values(pair.metric) for at, one in curve.items()} for label, curve in curves.items()}
    users = next(iter(curves["sparse"].values())).per_user[USER]
    kept.columns("robustness", {USER: users, **_by_column(values)})
    change = {label: np.mean([by[at] for at in noisy], axis=0) - by[0.0] for label, by in values.items()}
    gap = _interval(change["sparse"] - change["dense"])
    losses = "; ".join(
        f"at {percent(at)} sparse {_relative(values['sparse'], at)}, dense {_relative(values['dense'], at)}"
        for at in noisy
    )
    return Claim(
        name="Robustness",
        claim="A sparse table withstands noise in training better than a dense one.",
        experiment=f"Random interactions added to training, {len(seeds)} seeds each; clean test users.",
        verdict=_verdict(gap),
        evidence=f"{metric_name(pair.metric)} changes: {losses}. Sparse less dense, user by user"
        f"{' and averaged over the shares' if len(noisy) > 1 else ''}: {_shown(gap)}.",
        figures={label: {str(at): float(np.nanmean(one)) for at, one in by.items()} for label, by in values.items()},
    )


def over_fitting(pair: Pair, *, kept: Kept = NOTHING) -> Claim:
    """Whether the sparse model's lead in recalling training interactions is smaller than on new ones."""
    asked = pair.split.test.target.nnz / (pair.split.test.target.nnz + pair.split.test.history.nnz)
    figures, gaps = {}, {}
    for part in ("train", "test"):
        values = {}
        for label, model in (("sparse", pair.sparse), ("dense", pair.dense)):
            if part == "train":
                evaluation = recalled(model, pair.split.train, [pair.metric], target=asked)
            else:
                evaluation = evaluate(model, pair.split.test, [pair.metric])
            values[label] = evaluation.values(pair.metric)
            figures[f"{label} {part}"] = float(np.nanmean(values[label]))
        kept.columns(f"over-fitting-{part}", {USER: evaluation.per_user[USER], **values})
        gap = values["sparse"] - values["dense"]
        gaps[part] = gap[~np.isnan(gap)]
    # The users of the two parts are different people, so this is Welch's interval, not a paired one.
    test = stats.ttest_ind(gaps["test"], gaps["train"], equal_var=False)
    low, high = test.confidence_interval(0.95)
    less = Summary(float(gaps["test"].mean() - gaps["train"].mean()), float(low), float(high), len(gaps["test"]))
    return Claim(
        name="Over-fitting",
        claim="A sparse table over-fits less than a dense one.",
        experiment="The same task on training users, whose hidden items the model was fitted on, and on test users; "
        "Welch's interval, as these are different users.",
        verdict=_verdict(less),
        evidence=f"{metric_name(pair.metric)} on training and test users: sparse {figures['sparse train']:.3f} and "
        f"{figures['sparse test']:.3f}, dense {figures['dense train']:.3f} and {figures['dense test']:.3f}; "
        f"the sparse gap is smaller by {_shown(less)}.",
        figures=figures,
    )


def cold_start(pair: Pair, lengths: Sequence[int] = (1, 2, 3), *, kept: Kept = NOTHING) -> Claim:
    """Whether new users with very short histories are better served."""
    values, figures, each = {}, {}, {}
    for label, model in (("sparse", pair.sparse), ("dense", pair.dense)):
        curve = few_shot_curve(model, pair.split.test, lengths, [pair.metric])
        each[label] = {k: one.values(pair.metric) for k, one in curve.items()}
        values[label] = np.mean([one.values(pair.metric) for one in curve.values()], axis=0)
        figures[label] = {str(k): one.summaries[pair.metric].mean for k, one in curve.items()}
    kept.columns("cold-start", {USER: pair.split.test.target.user_ids, **_by_column(each)})
    gap = _interval(values["sparse"] - values["dense"])
    return Claim(
        name="Cold start",
        claim="A sparse table serves new users of whom little is known better.",
        experiment=f"The test users with their first {', '.join(map(str, lengths))} items only, averaged.",
        verdict=_verdict(gap),
        evidence=f"{metric_name(pair.metric)} {_means(values)}; user by user {_shown(gap)}.",
        figures=figures,
    )


def diversity(pair: Pair, k: int = 20, *, kept: Kept = NOTHING) -> Claim:
    """Whether lists are more varied, by items' features where they have some, by the dense embeddings otherwise."""
    features, names = feature_matrix(pair.dense.items_)
    vectors = features if names else pair.dense.item_table_.to_dense()
    n_items = pair.dense.item_table_.shape[0]
    distances, figures, shown = {}, {}, {}
    for label, model in (("sparse", pair.sparse), ("dense", pair.dense)):
        lists = best_items(model, pair.split.test.history, k)
        shown[f"{label} items"] = lists_of(lists, model.items_)
        distances[label] = beyond.intra_list_distance(lists, vectors)
        figures[label] = {"coverage": beyond.coverage(lists, n_items), "gini": beyond.gini(lists, n_items)}
    kept.columns("diversity", {USER: pair.split.test.target.user_ids, **distances, **shown})
    gap = _interval(distances["sparse"] - distances["dense"])
    return Claim(
        name="Diversity",
        claim="A sparse table recommends more varied lists.",
        experiment=f"Mean cosine distance by {'features' if names else 'dense embeddings'} within the top {k}.",
        verdict=_verdict(gap),
        evidence=f"Distance {_means(distances)}, user by user {_shown(gap)}; catalogue coverage "
        f"{percent(figures['sparse']['coverage'])} against {percent(figures['dense']['coverage'])}.",
        figures=figures,
    )


def interpretability(pair: Pair, top: int = 20, *, kept: Kept = NOTHING) -> Claim:
    """Whether the kept dimensions stand for features, above a shuffled control and above the dense table."""
    features, names = feature_matrix(pair.dense.items_)
    found = {}
    for label, model in (("sparse", pair.sparse), ("dense", pair.dense)):
        try:
            found[label] = interpret(model.item_table_.to_dense(), features, names, top=top, shuffles=SHUFFLES)
        except DataError:
            continue
    poles = [(label, pole) for label, one in found.items() for pole in one.poles]
    members = lists_of(np.array([pole.items for _, pole in poles], dtype=np.int32), pair.dense.items_) if poles else []
    told = {"dim": [pole.dim for _, pole in poles], "sign": [pole.sign for _, pole in poles],
            "feature": [pole.feature for _, pole in poles], "purity": [pole.purity for _, pole in poles]}  # fmt: skip
    kept.columns("interpretability", {"table": [label for label, _ in poles], **told, "items": members})
    if len(found) < 2:
        verdict: Verdict = "undecided"
        evidence = (
            f"No dimension of {'the sparse' if 'sparse' not in found else 'the dense'} table has {top} items at an end."
        )
    else:
        sparse, dense = found["sparse"], found["dense"]
        test = stats.ttest_ind(
            [pole.purity - sparse.control for pole in sparse.poles],
            [pole.purity - dense.control for pole in dense.poles], equal_var=False,
        )  # fmt: skip
        low, high = test.confidence_interval(0.95)
        gap = Summary(sparse.purity - sparse.control - dense.purity + dense.control, float(low), float(high), 0)
        verdict = _verdict(gap)
        if verdict == "holds" and sparse.p > 0.05:  # purer than the dense table, but not certainly than chance
            verdict = "undecided"
        named = ", ".join(f"{pole.feature.split('=')[-1]} ({pole.purity:.2f})" for pole in sparse.poles[:3])
        evidence = (
            f"Purity {sparse.purity:.3f} against {sparse.control:.3f} shuffled (p {sparse.p:.3f}); dense "
            f"{dense.purity:.3f} against {dense.control:.3f}. Excess over it, sparse less dense: {_shown(gap)}. "
            f"Purest: {named}."
        )
    return Claim(
        name="Interpretability",
        claim="What a sparse table keeps in a dimension stands for something, more than in a dense one.",
        experiment=f"The feature that the {top} strongest items at each end of a dimension share most; as control the "
        f"same with features shuffled, {SHUFFLES} times. Welch's interval over these ends.",
        verdict=verdict,
        evidence=evidence,
        figures={label: {"purity": one.purity, "control": one.control, "p": one.p} for label, one in found.items()},
    )


def _interval(values: npt.NDArray[np.float64]) -> Summary:
    return summarise(values[:, None], n_resamples=2000)[0]


def _by_column(values: Mapping[str, Mapping[int, PerUser] | Mapping[float, PerUser]]) -> dict[str, PerUser]:
    return {f"{label} {at:g}": each for label, by in values.items() for at, each in by.items()}


def _verdict(gap: Summary) -> Verdict:
    return "holds" if gap.low > 0 else "does not hold" if gap.high < 0 else "undecided"


def _shown(gap: Summary) -> str:
    return f"{signed(gap.mean)} [{signed(gap.low)}, {signed(gap.high)}]"


def _relative(by: dict[float, npt.NDArray[np.float64]], at: float) -> str:
    clean = float(np.nanmean(by[0.0]))
    return f"{signed(100 * (float(np.nanmean(by[at])) - clean) / clean, 1)} %"


def _means(values: dict[str, npt.NDArray[np.float64]]) -> str:
    return f"{np.nanmean(values['sparse']):.3f} against {np.nanmean(values['dense']):.3f}"

"""Figures as a person reads them, and the verdict in sentences: the same in HTML, Markdown and a terminal."""

import math
import re

from recsparse.report.choice import DENSE, Choice, bytes_of
from recsparse.report.results import Comparison, Measured, Results, Row


def metric_name(metric: str) -> str:
    """``ndcg@20`` as ``NDCG@20``."""
    name, at, k = metric.partition("@")
    names = {"recall": "Recall", "recall_capped": "Recall (capped)", "precision": "Precision", "hit": "Hit rate"}
    return names.get(name, name.replace("_", "-").upper()) + at + k


def human_bytes(count: float | None) -> str:
    """Bytes with a unit, three figures; thousands are 1000.

    >>> human_bytes(26.4), human_bytes(430_592), human_bytes(None)
    ('26.4 B', '431 kB', '–')
    """
    if count is None or not math.isfinite(count):
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def slug(label: str) -> str:
    """A row's label as the name of its directories.

    >>> slug("iALS 64 rows 30% int4")
    'ials-64-rows-30-int4'
    """
    return re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-")


def duration(value: float) -> str:
    """A time given in milliseconds, three figures in the unit that suits it.

    >>> duration(0.0123), duration(7.4), duration(25_300)
    ('12.3 µs', '7.4 ms', '25.3 s')
    """
    for factor, unit in ((1000.0, "µs"), (1.0, "ms")):
        if value * factor < 999.5:
            return f"{value * factor:.3g} {unit}"
    return f"{value / 1000:,.3g} s" if value < 999_500 else f"{value / 1000:,.0f} s"


def number(value: float | None, digits: int = 3) -> str:
    """A figure with fixed digits; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def percent(share: float) -> str:
    """A share in per cent, three figures at most.

    >>> percent(0.02), percent(0.005)
    ('2 %', '0.5 %')
    """
    return f"{100 * share:.3g} %"


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign (a true minus sign)."""
    return "–" if value is None or not math.isfinite(value) else f"{value:+.{digits}f}".replace("-", "−")


def interval(measured: Measured, digits: int = 3) -> str:
    """``0.412 [0.399, 0.425]``."""
    if not math.isfinite(measured.low):
        return number(measured.mean, digits)
    return f"{measured.mean:.{digits}f} [{measured.low:.{digits}f}, {measured.high:.{digits}f}]"


def difference_between(results: Results, a: str, b: str) -> Comparison | None:
    """The paired comparison of two rows on the headline metric, where the run made it."""
    for comparison in results.comparisons:
        if (comparison.a, comparison.b, comparison.metric) == (a, b, results.headline):
            return comparison
    return None


def verdict(results: Results, choice: Choice) -> tuple[str, list[str]]:
    """What to ship in a headline, and what it costs in sentences.

    The sentences say only what was measured: the size, the loss, how the best dense table of the same size does, and
    what the choice rests on.
    """
    row, reference, metric = choice.row, choice.reference, metric_name(results.headline)
    size = f"{human_bytes(row.bytes_per_item)} an item, {human_bytes(row.bytes_total)} in all"
    if row.label == reference.label:
        return f"Ship {row.label}", [
            f"No smaller table is within {percent(results.max_loss)} of its {metric}. It takes {size} and reaches "
            f"{interval(row.metrics[results.headline])}.",
            *filter(None, [_without_table(results, row)]),
            _basis(results, choice),
        ]
    sentences = [
        f"It takes {size}: {choice.times_smaller:.1f} times smaller than {reference.label} "
        f"({human_bytes(reference.bytes_per_item)} an item).",
        _cost(results, row, reference, metric),
        _against_rival(results, choice, metric),
        _elsewhere(row, reference, results.headline),
        _without_table(results, row),
        _basis(results, choice),
    ]
    return f"Ship {row.label}", [sentence for sentence in sentences if sentence]


def _without_table(results: Results, row: Row) -> str:
    """What does better without an embedding table."""
    ours = row.metrics[results.headline].mean
    better = [other for other in results.rows if not other.bytes_total and other.metrics[results.headline].mean > ours]
    if not better:
        return ""
    best = max(better, key=lambda other: other.metrics[results.headline].mean)
    has = "has an item-by-item matrix and no table" if best.family == "item-item" else "has no table"
    reached = f"{best.label}, which {has}, reaches {interval(best.metrics[results.headline])}"
    if best.family == "popularity":
        return f"Think again: {reached}, more than what ships. No table here earns its bytes."
    return f"{reached}."


def _cost(results: Results, row: Row, reference: Row, metric: str) -> str:
    ours, theirs = row.metrics[results.headline].mean, reference.metrics[results.headline].mean
    change = (ours - theirs) / theirs if theirs else math.nan
    text = f"{metric} goes from {theirs:.3f} to {ours:.3f} ({signed(100 * change, 1)} %"
    text += f", more than the {percent(results.max_loss)} accepted)" if -change > results.max_loss else ")"
    paired = difference_between(results, row.label, reference.label)
    if paired is None:
        return text + "."
    certain = (
        "a difference that is not zero" if paired.low > 0 or paired.high < 0 else "which may well be no difference"
    )
    return f"{text}; user by user {signed(paired.difference)} [{signed(paired.low)}, {signed(paired.high)}], {certain}."


def _elsewhere(row: Row, reference: Row, headline: str) -> str:
    """What the choice costs that its mean accuracy does not show, as far as the run measured it."""
    found = []
    ours, theirs = (one.item_groups.get("tail", {}).get(headline) for one in (row, reference))
    if ours and theirs and math.isfinite(ours.mean) and math.isfinite(theirs.mean):
        found.append(f"{metric_name(headline)} of rare items {ours.mean:.3f} against {theirs.mean:.3f}")
    if row.cost.top_k and reference.cost.top_k:
        times = (duration(cost.p50_ms) for cost in (row.cost.top_k, reference.cost.top_k))
        found.append("the best items for one user in {} against {}".format(*times))
    if row.cost.fit_seconds is not None and reference.cost.fit_seconds is not None:
        times = (duration(1000 * seconds) for seconds in (row.cost.fit_seconds, reference.cost.fit_seconds))
        found.append("trained in {} against {}".format(*times))
    return f"Besides: {'; '.join(found)}." if found else ""


def _against_rival(results: Results, choice: Choice, metric: str) -> str:
    row, rival = choice.row, choice.rival
    if row.family in DENSE:
        if all(other.family in DENSE for other in results.rows if other.bytes_total):
            return "This run has no sparse table to compare it with."
        way = "fewer bits are" if row.family == "quantised" else "a smaller dense table is"
        return (
            f"No sparse table of this run that is smaller keeps to the rule: here {way} the better way to fewer bytes."
        )
    if rival is None:
        return "No dense table of this run, quantised or not, is that small."
    paired = difference_between(results, row.label, rival.label)
    theirs = rival.metrics[results.headline].mean
    text = f"The best dense table of at most these bytes, {rival.label} ({human_bytes(bytes_of(rival))}), "
    text += f"reaches {theirs:.3f}"
    if paired is None:
        return text + f": {signed(row.metrics[results.headline].mean - theirs)} for the sparse one."
    how = "better" if paired.low > 0 else "worse" if paired.high < 0 else "neither better nor worse for certain"
    return (
        f"{text}; the sparse one is {how}: user by user {signed(paired.difference)} "
        f"[{signed(paired.low)}, {signed(paired.high)}]."
    )


def _basis(results: Results, choice: Choice) -> str:
    best = "dense one's" if choice.reference.family == "dense" else "one's (the run has no dense fp32 table)"
    rule = f"Rule: the smallest table that loses at most {percent(results.max_loss)} of the best {best} "
    rule += metric_name(results.headline)
    users = f"{choice.row.metrics[results.headline].users:,} test users"
    if choice.role == "validation":
        tuned = choice.row.validation[results.headline].users
        return f"{rule}, chosen on {tuned:,} validation users; all figures are of {users} nothing was tuned on."
    return (
        f"{rule}, chosen on the {users} themselves (the run has no validation figures for every table), so take the "
        "chosen figure as optimistic."
    )

"""What a dataset is like: counts, long tails, time span, feature coverage; as figures and as a page."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsparse.files import atomic_file
from recsparse.interactions.reading import stream
from recsparse.interactions.store import read_info, read_table

PERCENTILES = (0, 1, 10, 25, 50, 75, 90, 99, 100)


@dataclass(frozen=True)
class Stats:
    """A dataset in figures; ``asdict`` makes it JSON."""

    name: str
    users: int
    items: int
    interactions: int
    density: float
    activity: dict[str, Any]
    """Interactions a user: mean, Gini coefficient, percentiles, and ``top`` (share of the most active 1 %, 10 %)."""
    popularity: dict[str, Any]
    """Interactions an item, likewise."""
    values: dict[str, int]
    """How often each value occurs; the 20 most frequent."""
    first_time: int | None
    last_time: int | None
    months: dict[str, int]
    """Interactions a calendar month (UTC)."""
    user_features: dict[str, float]
    """Share of users that have each feature."""
    item_features: dict[str, float]
    funnel: list[dict[str, Any]] = field(default_factory=list)
    """What cleaning left out."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def describe(directory: Path) -> Stats:
    """Measure a dataset in one streamed pass. Memory: arrays as long as users and items, and one row group.

    Raises:
        FormatError: a file is missing or damaged.
    """
    directory = Path(directory)
    info = read_info(directory)
    users, items = (read_table(directory / f"{name}.parquet") for name in ("users", "items"))
    activity = np.zeros(users.num_rows, dtype=np.int64)
    popularity = np.zeros(items.num_rows, dtype=np.int64)
    values: dict[float, int] = {}
    months: dict[str, int] = {}
    first, last = None, None
    for block in stream(directory):
        activity[block.first : block.first + len(block)] = np.diff(block.indptr)
        popularity += np.bincount(block.items, minlength=items.num_rows)
        for value, count in zip(*np.unique(block.values, return_counts=True), strict=True):
            values[float(value)] = values.get(float(value), 0) + int(count)
        if block.times is not None and len(block.times):
            low, high = int(block.times.min()), int(block.times.max())
            first, last = min(low, low if first is None else first), max(high, high if last is None else last)
            month, counts = np.unique(block.times.astype("datetime64[s]").astype("datetime64[M]"), return_counts=True)
            for each, count in zip(month, counts, strict=True):
                months[str(each)] = months.get(str(each), 0) + int(count)
    frequent = sorted(sorted(values, key=lambda value: -values[value])[:20])
    return Stats(
        name=info["name"],
        users=users.num_rows,
        items=items.num_rows,
        interactions=info["counts"]["interactions"],
        density=info["density"],
        activity=spread(activity),
        popularity=spread(popularity),
        values={f"{value:g}": values[value] for value in frequent},
        first_time=first,
        last_time=last,
        months=dict(sorted(months.items())),
        user_features=_coverage(users),
        item_features=_coverage(items),
        funnel=info.get("funnel", []),
    )


def spread(counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Describe how unequally interactions are spread.

    The Gini coefficient is ``sum_i (2 i - n - 1) c_i / (n sum_i c_i)`` over the ascending counts c_1 ... c_n: 0 if all
    are equal, near 1 if one has everything.

    >>> spread(np.array([1, 1, 1, 1]))["gini"], spread(np.array([0, 0, 0, 4]))["gini"]
    (0.0, 0.75)
    """
    ascending = np.sort(counts)
    n, total = len(ascending), max(int(ascending.sum()), 1)
    place = np.arange(1, n + 1)
    top = {f"{share:.0%}": float(ascending[n - max(n * percent // 100, 1) :].sum() / total)
           for percent, share in ((1, 0.01), (10, 0.1))}  # fmt: skip
    lorenz = np.cumsum(ascending)[np.linspace(0, n - 1, min(n, 101)).astype(np.int64)] / total
    return {
        "mean": total / max(n, 1),
        "gini": float(((2 * place - n - 1) * ascending).sum() / (n * total)),
        "percentiles": {str(p): float(np.percentile(ascending, p)) for p in PERCENTILES},
        "top": top,
        "lorenz": lorenz.tolist(),
    }


def _coverage(table: Any) -> dict[str, float]:
    names = table.column_names[1:]
    return {name: 1 - table[name].null_count / max(table.num_rows, 1) for name in names}


def write_stats(stats: Stats, path: Path) -> None:
    """Write the figures with plots as one self-contained HTML file."""
    with atomic_file(path) as partial:
        partial.write_text(to_html(stats), encoding="utf-8")


def to_html(stats: Stats) -> str:
    """The whole page; every text from data is escaped."""
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 (not needed to measure)
    from markupsafe import Markup  # noqa: PLC0415
    from plotly.io import to_html as plot_html  # noqa: PLC0415

    plots = [
        Markup(plot_html(figure, full_html=False, include_plotlyjs=number == 0))  # noqa: S704 (escaped by Plotly)
        for number, figure in enumerate(_figures(stats))
    ]
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE)
    return page.render(stats=stats, plots=plots)


def _figures(stats: Stats) -> list[Any]:
    import plotly.graph_objects as go  # noqa: PLC0415

    lorenz = go.Figure()
    for name, side in (("users", stats.activity), ("items", stats.popularity)):
        shares = np.linspace(0, 1, len(side["lorenz"]))
        lorenz.add_scatter(x=shares, y=side["lorenz"], name=f"{name} (Gini {side['gini']:.3f})")
    lorenz.add_scatter(x=[0, 1], y=[0, 1], name="equal", line={"dash": "dot"})
    lorenz.update_layout(xaxis_title="share of users or items, least active first", yaxis_title="share of interactions")
    figures = [lorenz]
    bars = [(stats.values, "value"), (stats.months, "month")]
    figures += [
        go.Figure(go.Bar(x=list(counts), y=list(counts.values()))).update_layout(
            xaxis={"title": title, "type": "category"}, yaxis_title="interactions"
        )
        for counts, title in bars
        if counts
    ]
    for figure in figures:
        figure.update_layout(template="simple_white", height=360, margin={"t": 20})
    return figures


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ stats.name }}: data</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b2430 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .2rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr { border-bottom: 1px solid #e4e8ee }
</style></head><body>
<h1>{{ stats.name }}</h1>
<p>{{ "{:,}".format(stats.users) }} users, {{ "{:,}".format(stats.items) }} items,
{{ "{:,}".format(stats.interactions) }} interactions; {{ "{:.4%}".format(stats.density) }} of the matrix is known.</p>
<table><tr><th>interactions per</th><th>mean</th><th>Gini</th>
{% for p in stats.activity.percentiles %}<th>{{ p }} %</th>{% endfor %}<th>top 1 % have</th><th>top 10 % have</th></tr>
{% for name, side in (("user", stats.activity), ("item", stats.popularity)) %}
<tr><td>{{ name }}</td><td>{{ "{:.1f}".format(side.mean) }}</td><td>{{ "{:.3f}".format(side.gini) }}</td>
{% for value in side.percentiles.values() %}<td>{{ "{:.0f}".format(value) }}</td>{% endfor %}
<td>{{ "{:.1%}".format(side.top["1%"]) }}</td><td>{{ "{:.1%}".format(side.top["10%"]) }}</td></tr>{% endfor %}</table>
{% for plot in plots %}{{ plot }}{% endfor %}
{% for what, features in (("User", stats.user_features), ("Item", stats.item_features)) %}{% if features %}
<h2>{{ what }} features</h2><table><tr><th>feature</th><th>known for</th></tr>{% for name, share in features.items() %}
<tr><td>{{ name }}</td><td>{{ "{:.1%}".format(share) }}</td></tr>{% endfor %}
</table>{% endif %}{% endfor %}
{% if stats.funnel %}<h2>Cleaning</h2><table><tr><th>step</th><th>before</th><th>after</th></tr>
{% for step in stats.funnel %}<tr><td>{{ step.step }}</td>{% for counts in (step.before, step.after) %}
<td>{% for what, count in counts.items() %}{{ "{:,}".format(count) }} {{ what }} {% endfor %}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}
</body></html>
"""

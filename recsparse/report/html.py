"""Results as one self-contained HTML file: Plotly inlined once, no network, every text from data escaped."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsparse.files import atomic_file
from recsparse.report import figures
from recsparse.report.choice import Choice, bytes_of, choose
from recsparse.report.markdown import to_markdown
from recsparse.report.results import Comparison, Results, Row, check_results
from recsparse.report.tables import extra_tables
from recsparse.report.theme import DARK, FAMILIES, LIGHT
from recsparse.report.words import (
    difference_between,
    human_bytes,
    interval,
    metric_name,
    number,
    percent,
    signed,
    verdict,
)

ASSETS = Path(__file__).parent / "assets"


def write_report(results: Results | dict[str, Any], path: str | Path) -> None:
    """Write the report: ``path`` (HTML), and beside it the same in short as Markdown (``.md``).

    Args:
        results: validated, or the dict of a results JSON.
        path: of the HTML file.

    Raises:
        FormatError: the dict is no results document; the message names the key.
        DataError: no row has a packed table.
    """
    results = check_results(results)
    path = Path(path)
    page, summary = to_html(results), to_markdown(results)
    with atomic_file(path) as partial:
        partial.write_text(page, encoding="utf-8")
    with atomic_file(path.with_suffix(".md")) as partial:
        partial.write_text(summary, encoding="utf-8")


def to_html(results: Results) -> str:
    """The whole page."""
    # These two take half a second to import, which `recsparse --help` must not pay.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415
    from markupsafe import Markup  # noqa: PLC0415
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(ASSETS))
    environment.globals.update(
        number=number,
        signed=signed,
        human_bytes=human_bytes,
        percent=percent,
        sortable=lambda value: "" if math.isnan(value) else value,
    )
    choice = choose(results)
    title, sentences = verdict(results, choice)
    return environment.get_template("report.html.j2").render(
        results=results,
        choice=choice,
        title=title,
        sentences=sentences,
        tiles=_tiles(results, choice),
        warnings=[*results.split.warnings, *results.warnings],
        users=f"{choice.row.metrics[results.headline].users:,}",
        headline=metric_name(results.headline),
        metrics=results.metrics,
        metric_names=[metric_name(metric) for metric in results.metrics],
        lines=(lines := _lines(results, choice)),
        front={line.row.label for line in lines if line.front},
        extras=extra_tables(results),
        families={name: (LIGHT[name], DARK[name]) for name in FAMILIES},
        # Our own assets, and JSON in which no tag can begin: the only text that is not escaped.
        css=Markup((ASSETS / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        js=Markup((ASSETS / "report.js").read_text(encoding="utf-8")),  # noqa: S704
        plotly=Markup(get_plotlyjs()),  # noqa: S704
        colours=Markup(_json({LIGHT[name]: DARK[name] for name in LIGHT})),  # noqa: S704
        figures={name: Markup(_inside_script(figure.to_json())) for name, figure in _figures(results).items()},  # noqa: S704
    )


@dataclass(frozen=True)
class _Line:
    """A row of the main table with what is computed beside it."""

    row: Row
    chosen: bool
    front: bool
    smaller: float | None
    against: Comparison | None


def _lines(results: Results, choice: Choice) -> list[_Line]:
    by_size = sorted(results.rows, key=lambda row: (row.bytes_per_item is None, row.bytes_per_item or 0.0))
    front = figures.pareto([row for row in by_size if row.bytes_per_item], results.headline)
    return [
        _Line(
            row=row,
            chosen=row.label == choice.row.label,
            front=row in front or not row.bytes_total or row.label in (choice.row.label, choice.reference.label),
            smaller=bytes_of(choice.reference) / bytes_of(row) if row.bytes_total else None,
            against=difference_between(results, row.label, choice.reference.label),
        )
        for row in by_size
    ]


def _tiles(results: Results, choice: Choice) -> list[dict[str, str]]:
    row, reference, rival = choice.row, choice.reference, choice.rival
    ours, dense = row.metrics[results.headline], reference.metrics[results.headline]
    metric = metric_name(results.headline)
    tiles = [
        {
            "value": human_bytes(row.bytes_per_item),
            "what": "an item",
            "note": f"{human_bytes(row.bytes_total)} for {results.dataset.items:,} items",
        },
        {
            "value": f"{choice.times_smaller:.1f}×",
            "what": "smaller than dense fp32" if reference.family == "dense" else "smaller than the best table",
            "note": f"{reference.label}, {human_bytes(reference.bytes_per_item)} an item",
        },
        {
            "value": number(ours.mean),
            "what": metric,
            "note": f"95 % {number(ours.low)}–{number(ours.high)}; dense {number(dense.mean)}",
        },
    ]
    if rival is None:
        tiles.append({"value": "none", "what": "dense table this small", "note": "of any value type in this run"})
    else:
        paired = difference_between(results, row.label, rival.label)
        gap = ours.mean - rival.metrics[results.headline].mean
        note = f"{rival.label}: {interval(rival.metrics[results.headline])}"
        if paired is not None:
            gap, note = paired.difference, f"95 % {signed(paired.low)} to {signed(paired.high)}; {rival.label}"
        tiles.append({"value": signed(gap, 3), "what": f"{metric} against dense at equal bytes", "note": note})
    return tiles


def _figures(results: Results) -> dict[str, Any]:
    drawn = {"frontier": figures.frontier_figure(results)}
    if any(comparison.metric == results.headline for comparison in results.comparisons):
        drawn["differences"] = figures.differences_figure(results)
    if any(row.breakdown for row in results.rows):
        drawn["bytes"] = figures.bytes_figure(results)
    if any(row.few_shot for row in results.rows):
        drawn["few_shot"] = figures.few_shot_figure(results)
    if any(results.headline in point.metrics for row in results.rows for point in row.warm_up):
        drawn["warm_up"] = figures.warm_up_figure(results)
    if any(row.item_groups for row in results.rows):
        drawn["item_groups"] = figures.groups_figure(results, "item")
    if any(row.user_groups for row in results.rows):
        drawn["user_groups"] = figures.groups_figure(results, "user")
    return drawn


def _json(value: Any) -> str:
    return _inside_script(json.dumps(value))


def _inside_script(document: str) -> str:
    """Keep a tag from beginning inside a script element."""
    return document.replace("<", "\\u003c")

"""The report's further tables: what a representation costs to make and serve, cold items, beyond accuracy."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from recsparse.report.results import Latency, Measured, Results, Row
from recsparse.report.words import duration, human_bytes, metric_name, number, percent

Cell = tuple[float | str, str]
"""What a column sorts by ("" where nothing was measured), and what is shown."""


@dataclass(frozen=True)
class Extra:
    """One table: its title, a sentence on how to read it, column names and lines of cells.

    A line is hidden while only the frontier is shown, unless ``always`` is set.
    """

    title: str
    lead: str
    names: list[str]
    lines: list[list[Cell]]
    always: bool = False


def extra_tables(results: Results) -> list[Extra]:
    """Those for which the run measured something; a column nobody measured is left out."""
    costs = _table(
        results,
        "What it costs to make and to serve",
        f"Half of the calls are faster than p50, all but one in a hundred than p99. {_calls(results)} Fit is of the "
        "chosen settings alone; peak memory is the whole process's while it trained, data and libraries included.",
        {
            "Metadata": lambda row: _cell(row.metadata_share, percent),
            "File": lambda row: _cell(row.cost.file_bytes, human_bytes),
            "Convert, ms": lambda row: _cell(row.cost.convert_seconds, lambda s: f"{1000 * s:.2f}"),
            "Load, ms": lambda row: _cell(row.cost.load_seconds, lambda s: f"{1000 * s:.2f}"),
            "Lookup p50 / p99": lambda row: _latency(row.cost.lookup),
            "Top-K p50 / p99": lambda row: _latency(row.cost.top_k),
            "Fit, s": lambda row: _cell(row.cost.fit_seconds, lambda s: f"{s:.2f}"),
            "Peak memory": lambda row: _cell(row.cost.peak_memory_bytes, human_bytes),
        },
    )
    beyond = _table(
        results,
        "Beyond accuracy",
        "Of the lists each table recommends to the test users. Coverage is the share of the catalogue shown at all; "
        "a Gini of 0 or entropy of 1 shows all of it equally often; novelty is in bits, more for rarer items; a lift "
        "or a calibration error of 0 is like the users' own histories. Formulas stand in recsparse.evaluation.beyond.",
        {name: _beyond(name) for row in results.rows for name in row.beyond},
    )
    cold = _table(
        results,
        "Cold items",
        "Targets among items that no training user has, reached through features or a fallback only"
        + ("; here these items are ranked among themselves." if results.split.protocol == "cold-items" else "."),
        {metric_name(name): _cold(name) for row in results.rows for name in row.cold_items},
    )
    pruned = _table(
        results,
        "Pruned items",
        f"{metric_name(results.headline)} of targets whose rows were pruned, by what their ids return instead.",
        {name: _pruned("items", name, results.headline) for row in results.rows for name in row.pruned_items},
    )
    users = _table(
        results,
        "Pruned users",
        f"{metric_name(results.headline)} of the half of the test users with the shortest histories: by their own "
        "vector, and by what answers for them in a user table that lost their rows.",
        {name: _pruned("users", name, results.headline) for row in results.rows for name in row.pruned_users},
    )
    always = [replace(table, always=True) for table in (pruned, users) if table is not None]
    return [*(table for table in (costs, beyond, cold) if table is not None), *always]


def _calls(results: Results) -> str:
    costs = [row.cost for row in results.rows]
    lookups = {cost.lookup.batch for cost in costs if cost.lookup}
    top_ks = {cost.top_k.batch for cost in costs if cost.top_k}
    said = [f"A lookup is of {' or '.join(map(str, sorted(lookups)))} ids."] if lookups else []
    said += [f"A top-K is for {' or '.join(map(str, sorted(top_ks)))} user(s), folded in before."] if top_ks else []
    return " ".join(said)


def _table(results: Results, title: str, lead: str, columns: dict[str, Callable[[Row], Cell]]) -> Extra | None:
    rows = sorted(results.rows, key=lambda row: (row.bytes_per_item is None, row.bytes_per_item or 0.0))
    cells = {name: [cell_of(row) for row in rows] for name, cell_of in columns.items()}
    shown = [name for name, column in cells.items() if any(cell[0] != "" for cell in column)]
    lines: list[list[Cell]] = []
    for at, row in enumerate(rows):
        line = [cells[name][at] for name in shown]
        if any(cell[0] != "" for cell in line):
            lines.append([(row.label, row.label), *line])
    return Extra(title, lead, ["Table", *shown], lines) if lines else None


def _cell(value: float | None, show: Callable[[float], str]) -> Cell:
    return ("", "–") if value is None or math.isnan(value) else (value, show(value))


def _latency(latency: Latency | None) -> Cell:
    if latency is None:
        return ("", "–")
    return (latency.p50_ms, f"{duration(latency.p50_ms)} / {duration(latency.p99_ms)}")


def _beyond(name: str) -> Callable[[Row], Cell]:
    return lambda row: _cell(row.beyond.get(name), lambda value: f"{value:.4g}")


def _cold(metric: str) -> Callable[[Row], Cell]:
    return lambda row: _measured(row.cold_items.get(metric))


def _pruned(what: Literal["items", "users"], fallback: str, metric: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        by_fallback = row.pruned_items if what == "items" else row.pruned_users
        return _measured(by_fallback.get(fallback, {}).get(metric))

    return cell


def _measured(measured: Measured | None) -> Cell:
    if measured is None or math.isnan(measured.mean):
        return ("", "–")
    return (measured.mean, f"{number(measured.mean, 4)} [{number(measured.low, 4)}, {number(measured.high, 4)}]")

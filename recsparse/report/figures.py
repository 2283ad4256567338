"""The report's charts as Plotly figures, which in a notebook display themselves."""

import math
from typing import TYPE_CHECKING, Any

from recsparse.report.choice import choose
from recsparse.report.results import Measured, Results, Row
from recsparse.report.theme import FAMILIES, FONT, LIGHT, family_name, safe
from recsparse.report.words import human_bytes, metric_name

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


_Curve = tuple[Row, str, dict[int, Measured]]
"""A row for its colour, the curve's name, and its points."""


def frontier_figure(results: Results, metric: str | None = None) -> "Figure":
    """Bytes per item (log) against quality: what every byte saved has cost.

    A line a family joins its tables that no smaller one of the family beats; these carry their 95 % intervals. Models
    without a table are horizontal lines. The green band is what the rule accepts, the ring what it chose.
    """
    metric = metric or results.headline
    choice = choose(results)
    figure = _figure(f"{metric_name(metric)} (test)", "bytes per item", height=460)
    tables = [row for row in results.rows if row.bytes_per_item]
    best = choice.reference.metrics[metric].mean
    figure.add_hrect(y0=best * (1 - results.max_loss), y1=best, fillcolor=LIGHT["band"], line_width=0, layer="below")
    for family in FAMILIES:
        rows = sorted((row for row in tables if row.family == family), key=_size)
        if not rows:
            continue
        front = pareto(rows, metric)
        others = [row for row in rows if row not in front]
        _add_tables(figure, family, front, metric, front=True)
        if others:
            _add_tables(figure, family, others, metric, front=False)
    _add_lines_without_table(figure, results, metric, tables)
    chosen = choice.row
    figure.add_scatter(
        x=[chosen.bytes_per_item], y=[chosen.metrics[metric].mean], mode="markers", hoverinfo="skip",
        showlegend=False, name="chosen",
        marker={"size": 24, "symbol": "circle-open", "color": LIGHT["ink"], "line": {"width": 2}},
    )  # fmt: skip
    sizes = [row.bytes_per_item or 1 for row in tables]
    low, high = math.log10(min(sizes) / 1.4), math.log10(max(sizes) * 1.4)
    at = math.log10(chosen.bytes_per_item or 1)
    figure.add_annotation(
        x=at, y=chosen.metrics[metric].mean, text=f"<b>{safe(chosen.label)}</b>", showarrow=True, arrowhead=0,
        arrowcolor=LIGHT["ink"], ax=-18, ay=-46, xanchor="left" if at < low + 0.25 * (high - low) else "right",
        font={"size": 13, "color": LIGHT["ink"]},
    )  # fmt: skip
    ticks = [2**power for power in range(24) if low <= math.log10(2**power) <= high]
    figure.update_xaxes(type="log", range=[low, high], tickvals=ticks, ticktext=[human_bytes(tick) for tick in ticks])
    return figure


def few_shot_figure(results: Results, metric: str | None = None, labels: list[str] | None = None) -> "Figure":
    """Quality against the number of history items, the same users at every length.

    By default of the chosen table, the best dense one, the dense one of equal bytes, the models without a table, and
    the best that knows users' features: that by both, by the history alone, and by the features alone, a level line.
    """
    metric = metric or results.headline
    rows = _protagonists(results, labels)
    knowing = [row for row in results.rows if any(metric in point.fold_in for point in row.few_shot)]
    if labels is None and knowing:
        rows.append(max(knowing, key=lambda row: row.metrics[metric].mean))
    curves: list[_Curve] = []
    for row in {row.label: row for row in rows}.values():
        both = {point.history: point.metrics[metric] for point in row.few_shot if metric in point.metrics}
        alone = {point.history: point.fold_in[metric] for point in row.few_shot if metric in point.fold_in}
        curves.append((row, row.label, both))
        if alone:
            curves.append((row, f"{row.label}, history alone", alone))
            if 0 in both:
                curves.append((row, f"{row.label}, features alone", dict.fromkeys(both, both[0])))
    return _curves(curves, metric, "history items known of a user")


def warm_up_figure(results: Results, metric: str | None = None) -> "Figure":
    """Quality for new items against the interactions each has gathered, of every row for which the run measured it."""
    metric = metric or results.headline
    curves: list[_Curve] = [
        (row, row.label, {point.gathered: point.metrics[metric] for point in row.warm_up if metric in point.metrics})
        for row in results.rows
    ]
    return _curves(curves, metric, "interactions a new item has gathered")


def groups_figure(results: Results, kind: str = "item", metric: str | None = None) -> "Figure":
    """Quality by popularity group of items (``kind="item"``) or activity group of users (``"user"``), head to tail.

    Items nobody had in training are not drawn: without features every model has about nothing there.
    """
    from plotly.subplots import make_subplots  # noqa: PLC0415 (Plotly takes a second to import)

    metric = metric or results.headline

    def groups_of(row: Row) -> dict[str, dict[str, Measured]]:
        return row.item_groups if kind == "item" else row.user_groups

    rows = [row for row in _protagonists(results) if groups_of(row)]
    names = [name for name in dict.fromkeys(name for row in rows for name in groups_of(row)) if name != "unseen"]
    cols = max(len(names), 1)
    figure = make_subplots(cols=cols, subplot_titles=[safe(name) for name in names], horizontal_spacing=0.18 / cols)
    for column, name in enumerate(names, start=1):
        for row in rows:
            measured = groups_of(row).get(name, {}).get(metric)
            if measured is None:
                continue
            colour = LIGHT[row.family]
            figure.add_scatter(
                x=[measured.mean], y=[safe(row.label)], mode="markers", name=safe(row.label), showlegend=False,
                error_x=_error_bars([measured], colour), marker={"color": colour, "size": 11, "symbol": _symbol(row)},
                customdata=[_hover(measured)], hovertemplate="%{customdata}<extra>%{y}</extra>", cliponaxis=False,
                row=1, col=column,
            )  # fmt: skip
        figure.update_yaxes(showticklabels=column == 1, autorange="reversed", row=1, col=column)
        # Scales differ, and so each has its own; one title says what all of them are.
        title = metric_name(metric) if column == (len(names) + 1) // 2 else None
        figure.update_xaxes(title_text=title, rangemode="tozero", nticks=3, tickangle=0, row=1, col=column)
    return _style(figure, height=130 + 34 * max(len(rows), 3))


def bytes_figure(results: Results) -> "Figure":
    """Where the bytes of the tables on the frontier go: values, and the metadata that sparsity costs."""
    tables = pareto(sorted((row for row in results.rows if row.breakdown), key=_size), results.headline)
    chosen = choose(results)
    extra = [row for row in (chosen.row, chosen.reference, chosen.rival) if row and row.breakdown]
    rows = sorted({row.label: row for row in [*tables, *extra]}.values(), key=_size, reverse=True)
    figure = _figure("", "", height=140 + 26 * len(rows))
    parts = sorted({part for row in rows for part in row.breakdown}, key=lambda part: (part != "values", part))
    colours = [LIGHT[name] for name in ("quantised", "element", "row", "block", "low-rank", "dynamic", "other")]
    for number, part in enumerate(parts):
        figure.add_bar(
            x=[row.breakdown.get(part, 0) / (row.bytes_total or 1) for row in rows],
            y=[f"{safe(row.label)} · {human_bytes(row.bytes_per_item)}" for row in rows],
            orientation="h", name=safe(part), marker={"color": colours[number % len(colours)]},
            customdata=[human_bytes(row.breakdown.get(part, 0)) for row in rows],
            hovertemplate="%{x:.1%}, %{customdata}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    figure.update_layout(barmode="stack", bargap=0.35, legend_traceorder="normal")
    figure.update_yaxes(automargin=True, showgrid=False)
    figure.update_xaxes(showgrid=True, gridcolor=LIGHT["grid"], tickformat=".0%", range=[0, 1])
    return figure


def differences_figure(results: Results) -> "Figure":
    """Each compared pair's paired difference with its 95 % interval: left of zero it costs, right it gains."""
    rows = {row.label: row for row in results.rows}
    front = {
        row.label for row in pareto(sorted((r for r in rows.values() if r.bytes_total), key=_size), results.headline)
    }
    shown = [one for one in results.comparisons if one.metric == results.headline and one.a in rows]
    dense = sorted(
        (one for one in shown if one.why == "best dense table" and one.a in front), key=lambda one: -_size(rows[one.a])
    )
    equal = sorted(
        (one for one in shown if one.why == "dense at equal bytes" and one.a in front),
        key=lambda one: -_size(rows[one.a]),
    )
    figure = _figure("", f"Δ {metric_name(results.headline)}", height=140 + 30 * len(front))
    groups = (("against the best dense table", dense, ""), ("against dense at equal bytes", equal, "-open"))
    for name, group, hollow in groups:
        if not group:
            continue
        gaps = [Measured(mean=one.difference, low=one.low, high=one.high, users=one.users) for one in group]
        figure.add_scatter(
            x=[one.difference for one in group], y=[safe(one.a) for one in group], mode="markers", name=name,
            marker={
                "color": (colours := [LIGHT[rows[one.a].family] for one in group]), "size": 10,
                "line": {"width": 2, "color": colours},
                "symbol": [_symbol(rows[one.a]) + hollow for one in group],
            },
            error_x=_error_bars(gaps, LIGHT["soft"]),
            customdata=[[safe(one.b), one.low, one.high, one.p_holm] for one in group],
            hovertemplate="%{x:+.4f} [%{customdata[1]:+.4f}, %{customdata[2]:+.4f}] against %{customdata[0]}"
            "<br>Holm-corrected p %{customdata[3]:.3g}<extra>%{y}</extra>",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": LIGHT["ink"], "width": 1})
    figure.update_yaxes(automargin=True, showgrid=True)
    return figure


def pareto(rows: list[Row], metric: str) -> list[Row]:
    """Of rows sorted by size, those that no smaller one equals or beats."""
    front: list[Row] = []
    for row in rows:
        if not front or row.metrics[metric].mean > front[-1].metrics[metric].mean:
            if front and _size(front[-1]) == _size(row):
                front.pop()
            front.append(row)
    return front


def _protagonists(results: Results, labels: list[str] | None = None) -> list[Row]:
    if labels is not None:
        return [results.row(label) for label in labels]
    choice = choose(results)
    others = [row for row in results.rows if not row.bytes_total and row.family in ("item-item", "popularity")]
    rows = [row for row in (choice.row, choice.reference, choice.rival) if row is not None]
    smallest = min((row for row in results.rows if row.bytes_total), key=_size)
    return list({row.label: row for row in [*rows, smallest, *others]}.values())


def _curves(curves: list[_Curve], metric: str, x_title: str) -> "Figure":
    """A line a row over whole numbers, evenly spaced; rows without a point are left out."""
    figure = _figure(f"{metric_name(metric)} (test)", x_title, height=300 + 22 * sum(bool(each) for *_, each in curves))
    drawn: list[Row] = []
    for row, name, points in curves:
        if not points:
            continue
        at = sorted(points)
        colour = LIGHT[row.family]
        figure.add_scatter(
            x=[str(number) for number in at], y=[points[number].mean for number in at], name=safe(name),
            mode="lines+markers", error_y=_error_bars([points[number] for number in at], colour),
            line={"color": colour, "width": 2.5, "dash": _dash(drawn, row)},
            marker={"color": colour, "size": 9, "symbol": _symbol(row)},
            customdata=[_hover(points[number]) for number in at],
            hovertemplate="%{customdata}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
        drawn.append(row)
    every = sorted({number for _, _, points in curves for number in points})
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=[str(number) for number in every])
    return figure


def _add_tables(figure: "Figure", family: str, rows: list[Row], metric: str, *, front: bool) -> None:
    colour = LIGHT[family]
    measured = [row.metrics[metric] for row in rows]
    figure.add_scatter(
        x=[row.bytes_per_item for row in rows], y=[one.mean for one in measured], name=family_name(family),
        legendgroup=family, showlegend=front, mode="lines+markers" if front else "markers",
        line={"color": colour, "width": 2.5}, opacity=1.0 if front else 0.4,
        marker={"color": colour, "size": 10 if front else 8, "symbol": FAMILIES[family][1]},
        error_y=_error_bars(measured, colour) if front else None,
        customdata=[[safe(row.label), human_bytes(row.bytes_total), _hover(row.metrics[metric])] for row in rows],
        hovertemplate="<b>%{customdata[0]}</b><br>%{x:.3g} bytes an item, %{customdata[1]} in all<br>%{customdata[2]}"
        "<extra></extra>",
    )  # fmt: skip


def _add_lines_without_table(figure: "Figure", results: Results, metric: str, tables: list[Row]) -> None:
    """Draw EASE and popularity as lines, unless one lies so low that it would flatten the rest."""
    means = [row.metrics[metric].mean for row in tables]
    for row in results.rows:
        mean = row.metrics[metric].mean
        if row.bytes_per_item or mean < min(means) - 0.5 * (max(means) - min(means)):
            continue
        figure.add_hline(
            y=mean, line={"color": LIGHT[row.family], "width": 1.5, "dash": "dot"},
            annotation_text=f"{safe(row.label)} {mean:.3f}", annotation_position="top right",
            annotation_font={"size": 11, "color": LIGHT[row.family]},
        )  # fmt: skip


def _figure(y_title: str, x_title: str, height: int = 380) -> "Figure":
    from plotly.graph_objects import Figure  # noqa: PLC0415 (Plotly takes a second to import)

    figure = _style(Figure(), height)
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text=y_title)
    return figure


def _style(figure: "Figure", height: int) -> "Figure":
    figure.update_layout(
        height=height, template="none", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": LIGHT["ink"]}, margin={"l": 62, "r": 18, "t": 44, "b": 52},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 12}},
        hoverlabel={"bgcolor": LIGHT["paper"], "bordercolor": LIGHT["grid"], "font": {"color": LIGHT["ink"]}},
        hovermode="closest", dragmode=False,
    )  # fmt: skip
    axis = {"gridcolor": LIGHT["grid"], "zeroline": False, "linecolor": LIGHT["grid"], "ticks": "", "automargin": True}
    axis["tickfont"] = axis["title_font"] = {"color": LIGHT["soft"], "size": 12}
    axis["title_standoff"] = 14
    figure.update_xaxes(**axis, showgrid=False, showline=True)
    figure.update_yaxes(**axis)
    return figure


def _error_bars(measured: list[Measured], colour: str) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "array": [one.high - one.mean for one in measured],
        "arrayminus": [one.mean - one.low for one in measured], "color": colour, "thickness": 1, "width": 0,
    }  # fmt: skip


def _hover(measured: Measured) -> str:
    return f"{measured.mean:.4f} [{measured.low:.4f}, {measured.high:.4f}], {measured.users} users"


def _symbol(row: Row) -> str:
    symbol = FAMILIES[row.family][1]
    return "circle-open" if symbol == "line-ew" else symbol


def _dash(before: list[Row], row: Row) -> str:
    """Tell rows of one family apart by their dashes."""
    return ("solid", "dash", "dot", "dashdot")[sum(other.family == row.family for other in before) % 4]


def _size(row: Row) -> float:
    return row.bytes_per_item or 0.0

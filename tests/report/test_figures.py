"""The charts as objects: what a notebook shows."""

from itertools import pairwise

import pytest

from recsparse.report import (
    bytes_figure,
    differences_figure,
    few_shot_figure,
    frontier_figure,
    groups_figure,
    warm_up_figure,
)
from recsparse.report.figures import pareto
from recsparse.report.theme import DARK, LIGHT

DRAWN = {
    "frontier": frontier_figure,
    "few shot": few_shot_figure,
    "warm up": warm_up_figure,
    "items": groups_figure,
    "users": lambda results: groups_figure(results, "user"),
    "bytes": bytes_figure,
    "differences": differences_figure,
}


@pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)
def test_each_draws_what_the_results_say_and_displays_itself(draw, results):
    figure = draw(results)
    assert figure.data
    assert hasattr(figure, "_ipython_display_") or hasattr(figure, "_repr_mimebundle_")
    drawn = figure.to_json()
    used = {word for word in drawn.split('"') if word.startswith("#")}
    assert used <= set(LIGHT.values()), "every colour has a dark counterpart"


def test_light_and_dark_have_the_same_names_and_no_two_lights_share_a_colour():
    assert set(LIGHT) == set(DARK)
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_the_frontier_shows_every_table_once_at_its_size_and_quality(results):
    shown = {}
    for trace in frontier_figure(results).data:
        if trace.customdata is not None:
            shown |= {label: (x, y) for (label, *_), x, y in zip(trace.customdata, trace.x, trace.y, strict=True)}
    tables = {row.label: (row.bytes_per_item, row.metrics["ndcg@20"].mean) for row in results.rows if row.bytes_total}
    assert shown == tables


def test_pareto_is_what_no_smaller_row_equals_or_beats(results):
    rows = sorted((row for row in results.rows if row.bytes_total), key=lambda row: row.bytes_per_item)
    front = pareto(rows, "ndcg@20")
    points = [(row.bytes_per_item, row.metrics["ndcg@20"].mean) for row in front]
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(points)), "more bytes only for more quality"
    for row in rows:
        size, quality = row.bytes_per_item, row.metrics["ndcg@20"].mean
        assert row in front or any(x <= size and y >= quality for x, y in points), row.label


def test_few_shot_keeps_lengths_and_labels(results):
    figure = few_shot_figure(results, labels=["dense d64", "EASE"])
    assert [trace.name for trace in figure.data] == ["dense d64", "EASE"]
    assert list(figure.data[0].x) == ["0", "1", "2", "3", "5", "10"]
    assert list(figure.data[1].x) == ["1", "2", "3", "5", "10"]

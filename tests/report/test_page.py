"""The page as a reader's browser shows it."""

import os
import time
from itertools import combinations
from pathlib import Path

import pytest

from recsparse.report import write_report

CHARTS = ("frontier", "differences", "bytes", "few_shot", "warm_up", "item_groups", "user_groups")


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(results, path)
    return path


@pytest.fixture
def opened(browser, page):
    browser.resize(1280, 900)
    browser.prefer("light")
    browser.console(), browser.requests()  # of the page before
    browser.open(page)
    return browser


def marks(browser, figure):
    """How many points and bars a chart shows."""
    return browser.run(
        "return document.querySelectorAll(`[data-figure=figure-${arguments[0]}] .points path`).length", figure
    )


def test_every_chart_has_marks_and_nothing_complains(opened, results):
    for figure in CHARTS:
        assert marks(opened, figure) > 3, figure
    # every table is a mark of the frontier, and the ring is one more
    assert marks(opened, "frontier") == sum(bool(row.bytes_total) for row in results.rows) + 1
    assert opened.console() == []


def test_no_external_request(opened, page):
    assert {url for url in opened.requests() if not url.startswith(("data:", "chrome:"))} == {page.as_uri()}


def test_first_screen_answers_the_question(opened):
    """Above the fold: which table, its bytes, what it costs, and the dense table of equal bytes."""
    bottom, text = opened.run(
        "const hero = document.querySelector('.hero'); return [hero.getBoundingClientRect().bottom, hero.innerText]"
    )
    assert bottom < 800
    for words in ("Ship sparse d128, 12 kept, int8", "30 B", "17.1×", "NDCG@20", "equal bytes", "300 test users"):
        assert words in text, words


def test_sorting(opened):
    def bytes_shown():
        return opened.run("return [...document.querySelectorAll('#tables tbody tr')].map(r => r.cells[4].dataset.sort)")

    click = "document.querySelectorAll('#tables thead button')[4].click()"
    opened.run(click)
    known = [float(cell) for cell in bytes_shown() if cell]
    assert known == sorted(known)
    assert bytes_shown()[-2:] == ["", ""], "what has no table goes last"
    opened.run(click)
    known = [float(cell) for cell in bytes_shown() if cell]
    assert known == sorted(known, reverse=True)
    assert bytes_shown()[-2:] == ["", ""]
    labels = "document.querySelectorAll('#tables thead button')[0].click();"
    shown = opened.run(
        labels + "return [...document.querySelectorAll('#tables tbody tr')].map(r => r.cells[0].dataset.sort)"
    )
    assert shown[0] == "dense d128"


def test_tables_show_the_frontier_first_and_all_on_demand(opened, results):
    visible = "return [...document.querySelectorAll('#tables tbody tr')].filter(r => r.offsetParent !== null).length"
    assert 5 < opened.run(visible) < len(results.rows)
    opened.run("document.querySelector('[data-choose=all]').click()")
    assert opened.run(visible) == len(results.rows)


def test_what_was_measured_beside_accuracy_has_its_tables(opened):
    titles = opened.run("return [...document.querySelectorAll('summary h2')].map(h => h.innerText)")
    assert titles == ["What it costs to make and to serve", "Beyond accuracy", "Cold items", "Pruned items"]
    shown = opened.run("return document.querySelectorAll('main table')[4].innerText")
    assert shown.startswith("Table\tzero\tmean")
    assert "0.0200 [0.0040, 0.0360]" in shown


def test_dark_follows_the_reader_and_the_button(opened):
    colour = "return getComputedStyle(document.querySelector('.hero')).backgroundColor"
    stroke = "return getComputedStyle(document.querySelector('[data-figure=figure-frontier] .gtitle, .xtitle')).fill"
    light = opened.run(colour), opened.run(stroke)
    opened.prefer("dark")
    for _ in range(50):  # the page hears of it a frame later
        if opened.run("return document.documentElement.dataset.theme") == "dark":
            break
        time.sleep(0.05)
    dark = opened.run(colour), opened.run(stroke)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    opened.run("document.querySelector('.toggle').click()")
    assert (opened.run(colour), opened.run(stroke)) == light


def test_a_phone_scrolls_only_down(opened, page):
    opened.resize(390, 844, phone=True)
    opened.open(page)
    assert opened.run("return document.documentElement.scrollWidth") == 390
    widest = opened.run("return Math.max(...[...document.querySelectorAll('.chart svg')].map(s => s.clientWidth))")
    assert widest <= 390
    assert marks(opened, "frontier") > 3


@pytest.mark.parametrize("width", [390, 1280])
def test_no_words_of_the_group_charts_lie_on_others(browser, results, tmp_path, width):
    rows = [row.model_copy(update={"label": f"{row.label} of a long name"}) for row in results.rows]
    write_report(results.model_copy(update={"rows": rows, "comparisons": []}), tmp_path / "long.html")
    browser.resize(width, 844, phone=width < 800)
    browser.open(tmp_path / "long.html")
    boxes = browser.run("""
        const chart = document.querySelector('[data-figure=figure-item_groups]');
        return [...chart.querySelectorAll('g[class$=tick] text, text[class$=title]')].map((text) => {
            const box = text.getBoundingClientRect();
            return [text.textContent, box.left, box.right, box.top, box.bottom];
        });
    """)
    assert len(boxes) > 5
    assert max(bottom - top for *_, top, bottom in boxes) < 24, "upright"
    for one, other in combinations(boxes, 2):
        apart = one[2] <= other[1] or other[2] <= one[1] or one[4] <= other[3] or other[4] <= one[3]
        assert apart, (one, other)


def test_paper_keeps_the_charts(opened):
    pdf = opened.devtools("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]
    assert len(pdf) > 50_000
    assert opened.run("return document.documentElement.dataset.theme") == "light"


def test_screenshot_is_kept(opened, tmp_path):
    folder = Path(os.environ.get("RECSPARSE_SCREENSHOTS", tmp_path))
    opened.screenshot(folder / "report.png")
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")


def test_markup_in_names_stays_text(browser, results, tmp_path):
    evil = "</script><img src=x onerror=document.title='owned'><b>bold</b>"
    rows = [row.model_copy(update={"label": evil + row.label}) for row in results.rows]
    comparisons = [one.model_copy(update={"a": evil + one.a, "b": evil + one.b}) for one in results.comparisons]
    dataset = results.dataset.model_copy(update={"title": evil, "citation": evil})
    claims = [claim.model_copy(update={"evidence": evil}) for claim in results.claims]
    nasty = results.model_copy(
        update={
            "run": evil,
            "rows": rows,
            "dataset": dataset,
            "claims": claims,
            "comparisons": comparisons,
            "warnings": [evil],
        }
    )
    write_report(nasty, tmp_path / "evil.html")
    browser.resize(1280, 900)
    browser.open(tmp_path / "evil.html")
    assert browser.run("return document.title") != "owned"
    assert browser.run("return document.querySelectorAll('body img, main b, main script').length") == 0
    assert marks(browser, "frontier") > 3
    assert "<img" in browser.run("return document.querySelector('h1').innerText")
    assert "<img" not in (tmp_path / "evil.md").read_text()

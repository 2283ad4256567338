"""The pages build without a warning, are all to be found, and quote figures that were measured."""

import json
import logging
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize(
    ("heading", "name", "metric"),
    [
        ("MovieLens-100K, iALS", "ml-100k", "ndcg@20"),
        ("MovieLens-1M, iALS", "ml-1m", "ndcg@100"),
        ("Gowalla, the published split", "gowalla", "ndcg@20"),
    ],
)
def test_every_figure_of_a_frontier_was_measured(heading: str, name: str, metric: str) -> None:
    document = json.loads((RESULTS / f"frontier-{name}.json").read_text())
    measured = {row["label"]: row for row in document["rows"]}
    table = (DOCS / "which.md").read_text().partition(f"\n{heading}")[2].partition("\n|")[2].partition("\n\n")[0]
    quoted = re.findall(r"^\| (\w[^|]*) \| ([\d.]+) \| ([\d.]+) \|(?: ([-+][\d.]+) % \|)?", table, re.MULTILINE)
    assert len(quoted) >= 10
    whole = measured[quoted[0][0]]["metrics"][metric]["mean"]
    for label, size, quality, loss in quoted:
        mean = measured[label]["metrics"][metric]["mean"]
        assert measured[label]["bytes_per_item"] == pytest.approx(float(size), rel=0.01), label
        assert mean == pytest.approx(float(quality), abs=0.0006), label
        assert not loss or 100 * (mean / whole - 1) == pytest.approx(float(loss), abs=0.06), label


@pytest.mark.parametrize(("heading", "name"), [("MovieLens-1M", "ml-1m"), ("MovieTweetings", "movietweetings")])
def test_every_figure_of_a_whole_pipeline_was_measured(heading: str, name: str) -> None:
    document = json.loads((RESULTS / f"pipeline-{name}.json").read_text())
    measured = {row["label"]: row for row in document["rows"]}
    compared = {(one["a"], one["why"]): one for one in document["comparisons"]}
    text = (DOCS / "reproduce.md").read_text().partition("## Whole pipelines")[2].partition(f"\n{heading}, ")[2]
    lines = [re.split(r" *\| *", line)[1:-1] for line in re.findall(r"^\|.*$", text.partition("\n- ")[0], re.MULTILINE)]
    for label, size, quality, *pairs in lines[2:]:
        row = measured[label.strip("*")]
        assert label.startswith("**") == (row["label"] == document["ship"])
        assert row["metrics"][document["headline"]]["mean"] == pytest.approx(float(quality), abs=0.0006), label
        assert (row["bytes_per_item"] is None) == (size == "no table")
        assert size == "no table" or row["bytes_per_item"] == pytest.approx(float(size), rel=0.01), label
        whys = [(pairs[0], "best dense table"), (pairs[-1], "dense at equal bytes")][: len(pairs)]
        for said, why in whys:
            if said:
                one = compared[row["label"], why]
                figures = [float(figure) for figure in re.findall(r"[-+][\d.]+", said)]
                assert figures == pytest.approx([one["difference"], one["low"], one["high"]], abs=0.0006), (label, why)
    assert len(lines) > 6


def test_the_picture_of_the_frontier_is_drawn_from_what_was_measured() -> None:
    from benchmarks.frontier_picture import MEASURED, PICTURE, draw

    assert PICTURE.read_text() == draw(json.loads(MEASURED.read_text()))
    assert PICTURE.relative_to(ROOT).as_posix() in (ROOT / "README.md").read_text()


def test_every_pipeline_has_its_line() -> None:
    text = (DOCS / "pipelines.md").read_text()
    for file in (ROOT / "pipelines").glob("*.toml"):
        assert f"| `{file.name}` |" in text


def test_every_benchmark_that_is_named_is_there() -> None:
    named = set(re.findall(r"benchmarks/(\w+\.py)", (DOCS / "reproduce.md").read_text()))
    assert len(named) >= 5
    assert named <= {file.name for file in (ROOT / "benchmarks").glob("*.py")}


def test_every_file_that_a_reader_is_sent_to_is_there() -> None:
    tables = [line for line in (DOCS / "extend.md").read_text().splitlines() if line.startswith("| ")]
    folder = ""
    for line in tables:
        _, first, *rest, _ = line.split("|")
        if match := re.fullmatch(r" `(\w+)` ", first):
            folder = match[1]
        for named in re.findall(r"`([\w/.-]+\.(?:py|toml|j2))`", "".join(rest)):
            beside = re.findall(r"`(\w+)/\w+\.py`", line)  # `sparsity/criterion.py`, `schedule.py`
            places = [ROOT, ROOT / "recsparse", *(ROOT / "recsparse" / name for name in (folder, *beside))]
            assert any((place / named).exists() for place in places), named
    named = re.findall(r"`(recsparse/[\w/]+\.py)`", (ROOT / "README.md").read_text())
    assert len(named) >= 7
    assert all((ROOT / file).exists() for file in named)
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", page.read_text()):
            assert (ROOT / link).exists(), link


def test_every_page_is_in_the_navigation() -> None:
    told = (ROOT / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        assert f" {page.relative_to(DOCS)}\n" in told


def test_the_words_of_a_recipe_are_in_the_vocabulary() -> None:
    from recsparse.sparsity import recipe

    text = (DOCS / "vocabulary.md").read_text()
    for name in ("granularity", "criterion", "schedule", "allocation"):
        schema = recipe.Recipe.model_json_schema()
        kinds = re.findall(r"#/\$defs/(\w+)", json.dumps(schema["properties"][name]))
        for kind in {schema["$defs"][each]["properties"]["kind"]["const"] for each in kinds}:
            assert f"`{kind}`" in text, f"{name} {kind}"


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None:
        pytest.skip("MkDocs is not installed (the extra `docs`)")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    warnings: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())

    handler = Collect(level=logging.WARNING)
    logging.getLogger("mkdocs").addHandler(handler)
    try:
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=False))
    finally:
        logging.getLogger("mkdocs").removeHandler(handler)
    assert warnings == []
    for page in ("index.html", "api/models/index.html"):
        assert (tmp_path / page).stat().st_size > 10_000


def test_a_notebook_that_was_run_becomes_a_page() -> None:
    nbformat = pytest.importorskip("nbformat")
    from docs.render import page

    v4 = nbformat.v4
    frame = '<style>td {}</style><table border="1" class="dataframe"></table>'
    figure = {"data": [{"type": "bar", "y": [1, 2]}], "layout": {}}
    outputs = [
        v4.new_output("stream", text="12 lines\n"),
        v4.new_output("display_data", data={"application/vnd.plotly.v1+json": figure}),
        v4.new_output("execute_result", data={"text/html": frame, "text/plain": "a frame"}),
        v4.new_output("stream", name="stderr", text="noise"),
    ]
    text = page(v4.new_notebook(cells=[v4.new_markdown_cell("# Title"), v4.new_code_cell("1 + 1", outputs=outputs)]))
    assert text.startswith("# Title\n")
    places = [
        text.index(part) for part in ("```python\n1 + 1", "```text\n12 lines\n```", "Plotly.newPlot", "<table></table>")
    ]
    assert places == sorted(places)
    assert "noise" not in text
    failed = v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    with pytest.raises(RuntimeError, match="ValueError: no"):
        page(v4.new_notebook(cells=[v4.new_code_cell("1 / 0", outputs=[failed])]))

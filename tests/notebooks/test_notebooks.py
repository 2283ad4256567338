"""Every notebook runs from top to bottom on little data, and is kept without outputs."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from recsparse.interactions import synthesise

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))

SMALL = "dim, epochs, alpha0 = 8, 2, 1.0"
INSTEAD = {
    "01": "users, items, interactions = 200, 60, 3_000\ndim, epochs = 8, 2",
    "02": "dims, dim, densities, epochs, alpha0 = [4, 8], 8, [0.25], 2, [1.0]",
    "03": f"{SMALL}\nlengths = [0, 1, 3]",
    "04": f"{SMALL}\ndensity, shown = 0.25, 20",
    "05": "dim, epochs = 8, 1",
    "06": f"{SMALL}\ndensity, top, shuffles = 0.5, 4, 20",
}
FILES = """
from recsparse.interactions import Column, Features, Ratings, Source

source = Source(
    ratings=Ratings(path="files/ratings.csv", value=Column(name="rating"), time=Column(name="timestamp")),
    users=Features(path="files/users.csv", id=Column(name="user_id"), columns={"taste": "taste", "age": "age"}),
    items=Features(path="files/items.csv", id=Column(name="item_id"), columns={"topic": "topic", "year": "year"}),
)
"""


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_clean(file: Path) -> None:
    document = json.loads(file.read_text())
    cells = document["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert cells[0]["source"][0].startswith("# ")
    assert [cell["metadata"].get("tags") for cell in code].count(["parameters"]) == 1
    assert code[0]["metadata"]["tags"] == ["parameters"]
    assert json.dumps(document, indent=1, ensure_ascii=False) + "\n" == file.read_text()


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_notebook_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("nbclient") is None or find_spec("ipykernel") is None:
        pytest.skip("nbclient and ipykernel are not installed (the extra `notebooks`)")
    if file.stem.startswith("05") and find_spec("torchrec") is None:
        pytest.skip("torchrec is not installed (the extra `torchrec`)")
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(file.parents[1]))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    synthesise(tmp_path / "files", users=200, items=60, interactions=3_000)
    document = nbformat.read(file, as_version=4)
    number = file.stem[:2]
    at = next(place for place, cell in enumerate(document.cells) if cell.cell_type == "code")
    given = INSTEAD[number] if number == "01" else f"{INSTEAD[number]}\n{FILES}"
    document.cells.insert(at + 1, nbformat.v4.new_code_cell(given))
    NotebookClient(document, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [
        output.data
        for cell in document.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output
    ]
    assert any("application/vnd.plotly.v1+json" in data or "text/html" in data for data in shown)

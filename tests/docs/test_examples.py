"""What the pages and the README show is run: Python as it stands, commands through the installed entry point."""

import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from recsparse.cli import main
from recsparse.pipeline import Run

ROOT = Path(__file__).parents[2]
MISSING = {"distributed.md"} if find_spec("torchrec") is None else set()  # the extra `torchrec` is for Linux
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in MISSING]

SMALL = """
name = "demo"
split.options = { validation = 0.2, test = 0.2 }
data.source.ratings = { path = "ratings.csv", user = "userId", item = "movieId", value = "rating" }
evaluation.few_shot = []
[[models]]
kind = "ials"
params = { dim = 4, epochs = 2 }
"""


def call(command: str) -> None:
    """Run one line in this process."""
    words = shlex.split(command, comments=True)
    assert words[0] == "recsparse"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            main()
    assert not left.value.code, command


def commands(example: Example) -> None:
    """Run every line of a block."""
    for line in example.parsed.replace("\\\n", " ").splitlines():
        call(line)


SYBIL = Sybil([PythonCodeBlockParser(), CodeBlockParser("sh", commands)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("folder")
def test_what_a_page_shows_runs(page: Path) -> None:
    blocks = list(SYBIL.parse(page))
    assert len(blocks) == sum(page.read_text().count(f"\n```{language}\n") for language in ("python", "sh"))
    for block in blocks:
        block.evaluate()


def test_what_the_readme_shows_runs(folder: Path) -> None:
    (folder / "demo.toml").write_text(SMALL)
    Run.read(folder / "demo.toml")()
    blocks = list(SYBIL.parse(ROOT / "README.md"))
    assert len(blocks) >= 2
    for block in blocks:
        block.evaluate()


def test_the_commands_of_the_readme_run(folder: Path) -> None:
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("recsparse ")]
    assert len(lines) >= 4
    for line in lines:
        call(line.replace("dim=64", "dim=16"))
    assert (folder / "model" / "model.json").exists()

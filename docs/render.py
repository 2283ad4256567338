"""Run the notebooks at full size; each becomes a Markdown page in build/notebooks, which docs/hooks.py adds.

python docs/render.py [01 02 ...]
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import plotly.io
from nbclient import NotebookClient
from plotly.offline import get_plotlyjs

ROOT = Path(__file__).parents[1]
RENDERED = ROOT / "build" / "notebooks"
PLOTLY = "plotly.min.js"
SHOWN = {"displayModeBar": False, "responsive": True}
PANDAS = '<table border="1" class="dataframe">'
"""How its tables begin; without the class one looks like those of the pages."""


def shown(output: Any) -> str:
    """One output as Markdown: a figure, a table or text."""
    if output.output_type == "error":
        raise RuntimeError(f"{output.ename}: {output.evalue}")
    data = {"text/plain": output.text} if output.output_type == "stream" else output.data
    if "application/vnd.plotly.v1+json" in data:
        figure = plotly.io.from_json(json.dumps(data["application/vnd.plotly.v1+json"]), skip_invalid=True)
        return str(plotly.io.to_html(figure, full_html=False, include_plotlyjs=False, config=SHOWN))
    if "text/html" in data:
        return f"<div>{data['text/html'].replace(PANDAS, '<table>')}</div>"
    return f"```text\n{data.get('text/plain', '').rstrip()}\n```"


def page(notebook: nbformat.NotebookNode) -> str:
    """An executed notebook as Markdown."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        else:
            parts.append(f"```python\n{cell.source}\n```")
            parts += [shown(output) for output in cell.outputs if output.get("name") != "stderr"]
    title, _, rest = "\n\n".join(parts).partition("\n")
    return f'{title}\n\n<script src="../{PLOTLY}"></script>\n{rest}\n'


def main() -> None:
    """Render those whose numbers are asked for, all by default."""
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["PYTHONWARNINGS"] = "ignore"
    RENDERED.mkdir(parents=True, exist_ok=True)
    for file in sorted((ROOT / "notebooks").glob("*.ipynb")):
        if sys.argv[1:] and file.stem[:2] not in sys.argv[1:]:
            continue
        folder = tempfile.mkdtemp()
        notebook = nbformat.read(file, as_version=4)
        NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": folder}}).execute()
        (RENDERED / f"{file.stem}.md").write_text(page(notebook))
        shutil.rmtree(folder)
    (RENDERED / PLOTLY).write_text(get_plotlyjs())


if __name__ == "__main__":
    main()

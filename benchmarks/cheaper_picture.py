"""Draw docs/img/cheaper.svg from results/training-cheaper.json: memory and time of training as the density falls.

Run: python benchmarks/cheaper_picture.py
"""

import io
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from frontier_picture import LOOK
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks" / "results" / "training-cheaper.json"
PICTURE = ROOT / "docs" / "img" / "cheaper.svg"


def draw(figures: dict[str, Any]) -> str:
    """The picture, SVG; the same text for the same figures."""
    with mpl.rc_context(LOOK | {"svg.hashsalt": "cheaper"}):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        panels = {
            "training peak over dense held": "peak of training", "held over dense": "weights and state",
            "step seconds over dense": "an epoch's steps",
        }  # fmt: skip
        for axes, (key, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            for (name, rows), colour in zip(figures.items(), ("#78909c", "#00796b", "#ffb300", "#c62828"), strict=True):
                axes.plot([float(density) for density in rows], [row[key] for row in rows.values()], "o-",
                          color=colour, markersize=4.5, label=name)  # fmt: skip
            axes.set(xscale="log", xlabel="density of both tables")
            axes.set_ylim(bottom=0)
            densities = [float(density) for density in next(iter(figures.values()))]
            axes.set_xticks(densities, [f"{density:g}" for density in densities])
            axes.minorticks_off()
            axes.grid(axis="y", color="#eceff1")
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(title, loc="left", fontsize=10)
        figure.suptitle("over what the dense training holds, and its time", x=0.01, ha="left", fontsize=9)
        figure.axes[0].legend(frameon=False, loc="upper left", fontsize=8)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": "Density against memory and time"})
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())


if __name__ == "__main__":
    PICTURE.write_text(draw(json.loads(MEASURED.read_text())["figures"]))

"""Draw docs/img/frontier.svg from results/frontier-ml-100k.json: the best table of every size, dense and sparse.

Run: python benchmarks/frontier_picture.py
"""

import io
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks" / "results" / "frontier-ml-100k.json"
PICTURE = ROOT / "docs" / "img" / "frontier.svg"
METRIC = "ndcg@100"
DENSE = ("dense", "quantised")
SIZES, QUALITIES = (0.7, 160.0), (0.32, 0.56)
LOOK = {"svg.fonttype": "none", "svg.hashsalt": "frontier", "font.family": "sans-serif", "text.color": "#37474f",
        "axes.edgecolor": "#cfd8dc", "xtick.color": "#37474f", "ytick.color": "#37474f"}  # fmt: skip


def front(rows: list[dict[str, Any]]) -> list[tuple[float, float, float, float]]:
    """Size, quality and its interval of the rows that no smaller one beats."""
    found, best = [], 0.0
    for row in sorted(rows, key=lambda row: row["bytes_per_item"]):
        measured = row["metrics"][METRIC]
        if measured["mean"] > best:
            best = measured["mean"]
            found.append((row["bytes_per_item"], best, measured["low"], measured["high"]))
    return found


def draw(measured: dict[str, Any]) -> str:
    """The picture, SVG; the same text for the same figures."""
    rows = [row for row in measured["rows"] if row["bytes_per_item"]]
    curves = {
        "sparse": ("#00796b", [row for row in rows if row["family"] not in (*DENSE, "other")]),
        "dense, quantised": ("#78909c", [row for row in rows if row["family"] in DENSE]),
    }
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(7.2, 3.9), layout="constrained")
        axes = figure.subplots()
        for name, (colour, members) in curves.items():
            sizes, means, lows, highs = zip(*front(members), strict=True)
            axes.fill_between(sizes, lows, highs, color=colour, alpha=0.1, linewidth=0)
            axes.plot(sizes, means, "o-", color=colour, markersize=4.5, label=name)
        axes.set(xscale="log", xlim=SIZES, ylim=QUALITIES, xlabel="bytes an item")
        axes.set_xticks([2**power for power in range(8)], [str(2**power) for power in range(8)])
        axes.minorticks_off()
        axes.grid(axis="y", color="#eceff1")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title("The best item table of every size (MovieLens-100K)", loc="left", fontweight="bold", pad=20)
        axes.text(0, 1.02, "NDCG@100, mean and 95 % interval over users", transform=axes.transAxes)
        axes.legend(loc="lower right", frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Title": "Bytes an item against NDCG@100"})
    return "".join(line.rstrip() + "\n" for line in text.getvalue().splitlines())


if __name__ == "__main__":
    PICTURE.write_text(draw(json.loads(MEASURED.read_text())))

"""Draw docs/img/frontier.svg from results/frontier-ml-100k.json: the best table of every size, dense and sparse.

Run: python benchmarks/frontier_picture.py
"""

import json
import math
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks" / "results" / "frontier-ml-100k.json"
PICTURE = ROOT / "docs" / "img" / "frontier.svg"
METRIC = "ndcg@100"
DENSE = ("dense", "quantised")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 380, 62, 150, 48, 46
SIZES, QUALITIES = (0.7, 160.0), (0.32, 0.56)


def front(rows: list[dict[str, Any]]) -> list[tuple[float, float, float, float]]:
    """Size, quality and its interval of the rows that no smaller one beats."""
    found, best = [], 0.0
    for row in sorted(rows, key=lambda row: row["bytes_per_item"]):
        measured = row["metrics"][METRIC]
        if measured["mean"] > best:
            best = measured["mean"]
            found.append((row["bytes_per_item"], best, measured["low"], measured["high"]))
    return found


def x(size: float) -> float:
    """Across, by the logarithm."""
    low, high = map(math.log, SIZES)
    return LEFT + (math.log(size) - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def y(quality: float) -> float:
    """Upwards."""
    low, high = QUALITIES
    return TOP + (high - quality) / (high - low) * (HEIGHT - TOP - BOTTOM)


def draw(measured: dict[str, Any]) -> str:
    """The picture."""
    rows = [row for row in measured["rows"] if row["bytes_per_item"]]
    curves = [
        ("sparse", "#00796b", front([row for row in rows if row["family"] not in (*DENSE, "other")])),
        ("dense, quantised", "#78909c", front([row for row in rows if row["family"] in DENSE])),
    ]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" '
        'font-size="13" fill="#37474f">',
        "<title>Bytes an item against NDCG@100, sparse and dense tables, MovieLens-100K</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-size="15" font-weight="bold">'
        "The best item table of every size (MovieLens-100K)</text>",
    ]
    for tick in (0.35, 0.4, 0.45, 0.5, 0.55):
        lines += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#eceff1"/>',
            f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.2f}</text>',
        ]
    for power in range(8):
        lines.append(f'<text x="{x(2**power):.1f}" y="{HEIGHT - 26}" text-anchor="middle">{2**power}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    lines.append(f'<text x="{middle}" y="{HEIGHT - 7}" text-anchor="middle">bytes an item</text>')
    lines.append(f'<text x="{LEFT}" y="41" font-size="12">NDCG@100, mean and 95 % interval over users</text>')
    for number, (name, colour, points) in enumerate(curves):
        path = " ".join(f"{x(size):.1f},{y(quality):.1f}" for size, quality, _, _ in points)
        band = [(x(size), y(high)) for size, _, _, high in points]
        band += [(x(size), y(low)) for size, _, low, _ in reversed(points)]
        shape = " ".join(f"{across:.1f},{up:.1f}" for across, up in band)
        lines += [
            f'<polygon points="{shape}" fill="{colour}" opacity="0.10"/>',
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>',
            *(
                f'<circle cx="{x(size):.1f}" cy="{y(quality):.1f}" r="3.5" fill="{colour}"/>'
                for size, quality, _, _ in points
            ),
        ]
        place = HEIGHT - BOTTOM - 60 + 24 * number
        lines += [
            f'<line x1="{WIDTH - RIGHT + 4}" x2="{WIDTH - RIGHT + 24}" y1="{place}" y2="{place}" stroke="{colour}" '
            'stroke-width="3"/>',
            f'<text x="{WIDTH - RIGHT + 30}" y="{place + 4}">{name}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(json.loads(MEASURED.read_text())))

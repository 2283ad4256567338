"""Names, colours and symbols of the families, and of ink and paper, in light and in dark."""

from html import escape

FAMILIES: dict[str, tuple[str, str]] = {
    "dense": ("Dense fp32", "circle"),
    "quantised": ("Dense, fewer bits", "square"),
    "element": ("Element-sparse", "diamond"),
    "block": ("Block-sparse", "hexagon2"),
    "row": ("Row-pruned", "triangle-up"),
    "low-rank": ("Low-rank × sparse", "star"),
    "dynamic": ("Dynamic sparse", "cross"),
    "item-item": ("Item-item, no table", "line-ew"),
    "popularity": ("Popularity", "line-ew"),
    "other": ("Other", "x"),
}
"""Family -> (name, marker symbol); the order is that of the legend. Symbols tell the families apart without colour."""

LIGHT: dict[str, str] = {
    "dense": "#475569",
    "quantised": "#2563eb",
    "element": "#d9480f",
    "block": "#a16207",
    "row": "#0a8f69",
    "low-rank": "#7c3aed",
    "dynamic": "#c0267c",
    "item-item": "#64707f",
    "popularity": "#8a94a3",
    "other": "#7a6a5b",
    "ink": "#1b2430",
    "soft": "#5c6878",
    "grid": "#e4e8ee",
    "paper": "#fefefe",
    "band": "#e9f4ee",
}
DARK: dict[str, str] = {
    "dense": "#b8c4d6",
    "quantised": "#7ba6ff",
    "element": "#ff8b52",
    "block": "#e5b454",
    "row": "#3ad0a3",
    "low-rank": "#b89cff",
    "dynamic": "#ff7fc2",
    "item-item": "#93a0b2",
    "popularity": "#7f8b9c",
    "other": "#c2b09e",
    "ink": "#e8edf4",
    "soft": "#9aa7b8",
    "grid": "#2a3442",
    "paper": "#151b24",
    "band": "#173228",
}
"""Figures are drawn in the light colours; the page swaps each for its dark one where the reader prefers dark."""

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def family_name(family: str) -> str:
    """The family's name for a reader."""
    return FAMILIES[family][0]


def safe(text: str) -> str:
    """Escape text from data for Plotly, which reads tags (and links) in labels."""
    return escape(text, quote=False)

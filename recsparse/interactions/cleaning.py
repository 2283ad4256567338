"""The steps between somebody's lines and a clean matrix, as SQL that DuckDB and Spark both run.

Tables: ``lines`` (user_id, item_id, value[, t], line) as read; ``pairs`` (u, i, value[, t], line) with codes for ids.
"""
# ruff: noqa: S608 (SQL is put together from our own names and from what the user's own source says)

from typing import Annotated, Any, Literal

from pydantic import Field

from recsparse.errors import DataError
from recsparse.interactions.engine import Engine
from recsparse.interactions.source import Spec

Funnel = list[dict[str, Any]]


class Cleaning(Spec):
    """What is done to the lines, in this order. The defaults only merge repeated pairs.

    The first three look at one line at a time, as preprocessing in the field does: a rating below the threshold is
    left out even where a later or an earlier one of the same pair is above it.
    """

    since: int | None = None
    """Leave out lines before this time (seconds since the epoch)."""
    until: int | None = None
    """Leave out lines at or after this time."""
    min_value: float | None = None
    """Leave out lines with a lower value."""
    duplicates: Literal["last", "max", "sum", "count"] = "last"
    """What a pair's value is when it has several lines; the last is the latest, of equal times the last line."""
    transform: Literal["implicit", "log1p", "sqrt"] | None = None
    """What becomes of a value v: 1, ln(1 + v), or the square root of v."""
    min_item: Annotated[int, Field(ge=0)] = 0
    """Leave out items with fewer users, once."""
    min_user: Annotated[int, Field(ge=0)] = 0
    """Then leave out users with fewer items, once."""
    k_core: Annotated[int, Field(ge=0)] = 0
    """Leave out users and items with fewer than k, again and again until none is left."""

    @property
    def needs_everything(self) -> bool:
        """Whether what these steps leave out could come back with more lines, so that appending is not possible."""
        late = self.transform is not None and self.duplicates in {"sum", "count"}
        return bool(self.min_item or self.min_user or self.k_core or late)

    @property
    def line_value(self) -> str:
        """SQL for what a line is worth before repeated pairs are merged.

        Every transform is increasing, so that with ``last`` and ``max`` it may as well come first.
        """
        if self.duplicates == "count":
            return "CAST(1 AS FLOAT)"
        return "value" if self.duplicates == "sum" else f"CAST({self._transformed} AS FLOAT)"

    @property
    def pair_value(self) -> str:
        """SQL for what a pair is worth once its lines are merged."""
        return self._transformed if self.duplicates in {"sum", "count"} else "value"

    @property
    def _transformed(self) -> str:
        return TRANSFORMS[self.transform] if self.transform else "value"


TRANSFORMS = {"implicit": "1", "log1p": "ln(1 + value)", "sqrt": "sqrt(value)"}


def filter_lines(engine: Engine, cleaning: Cleaning, timed: bool) -> tuple[str, Funnel]:
    """Give the condition for lines to be kept, and how many each step keeps."""
    steps: list[tuple[str, str]] = []
    if cleaning.since is not None or cleaning.until is not None:
        if not timed:
            raise DataError("A time window (since, until) needs a time column; name it, or leave the window out.")
        bounds = [f"t >= {cleaning.since}"] if cleaning.since is not None else []
        bounds += [f"t < {cleaning.until}"] if cleaning.until is not None else []
        steps.append(("time window", " AND ".join(bounds)))
    if cleaning.min_value is not None:
        steps.append(("min value", f"value >= {cleaning.min_value!r}"))
    conditions = [" AND ".join(f"({each})" for _, each in steps[: number + 1]) for number in range(len(steps))]
    counts = ", ".join(["count(*)", *(f"count(CASE WHEN {condition} THEN 1 END)" for condition in conditions)])
    kept = engine.rows(f"SELECT {counts} FROM lines")[0]
    funnel = [
        {"step": step, "before": {"lines": kept[number]}, "after": {"lines": kept[number + 1]}}
        for number, (step, _) in enumerate(steps)
    ]
    return (conditions[-1] if conditions else "TRUE"), funnel


def merge_duplicates(engine: Engine, cleaning: Cleaning, timed: bool, n_items: int) -> dict[str, Any]:
    """Merge the lines of a pair. Only pairs that repeat are touched: most data have few or none."""
    key = f"CAST(u AS BIGINT) * {n_items} + i"
    engine.create("repeated", f"SELECT {key} AS pair FROM pairs GROUP BY {key} HAVING count(*) > 1")
    before = _count(engine)
    if engine.rows("SELECT count(*) FROM repeated")[0][0]:
        order = "struct(t, line)" if timed else "line"
        value, time = {
            "last": (f"max_by(value, {order})", f"max_by(t, {order})"),
            "max": ("max(value)", "max_by(t, struct(value, t))"),
            "sum": ("CAST(sum(CAST(value AS DOUBLE)) AS FLOAT)", "max(t)"),
            "count": ("CAST(sum(CAST(value AS DOUBLE)) AS FLOAT)", "max(t)"),
        }[cleaning.duplicates]
        t, merged = (", t", f", {time} AS t") if timed else ("", "")
        engine.create(
            "pairs",
            f"SELECT u, i, value{t} FROM pairs WHERE NOT EXISTS (SELECT 1 FROM repeated WHERE pair = {key}) "
            "UNION ALL "
            f"SELECT u, i, {value} AS value{merged} FROM pairs "
            f"WHERE EXISTS (SELECT 1 FROM repeated WHERE pair = {key}) "
            "GROUP BY u, i",
        )
    engine.drop("repeated")
    return {
        "step": f"duplicates: {cleaning.duplicates}",
        "before": {"interactions": before},
        "after": {"interactions": _count(engine)},
    }


def drop_rare(engine: Engine, cleaning: Cleaning) -> Funnel:
    """Leave out rare items and users.

    Raises:
        DataError: nothing is left.
    """
    funnel = []
    for step, item, user in (
        (f"min item {cleaning.min_item}", cleaning.min_item, 0),
        (f"min user {cleaning.min_user}", 0, cleaning.min_user),
        (f"{cleaning.k_core}-core", cleaning.k_core, cleaning.k_core),
    ):
        if not item and not user:
            continue
        before = after = _counts(engine)
        while True:
            kept = [f"{axis} IN (SELECT {axis} FROM pairs GROUP BY {axis} HAVING count(*) >= {least})"
                    for axis, least in (("u", user), ("i", item)) if least]  # fmt: skip
            engine.create("pairs", f"SELECT * FROM pairs WHERE {' AND '.join(kept)}")
            last, after = after, _counts(engine)
            if after == last or not (item and user):
                break
        funnel.append({"step": step, "before": before, "after": after})
        if not after["interactions"]:
            raise DataError(
                f"Nothing is left after {step} (before it: {before['interactions']} interactions of {before['users']} "
                f"users with {before['items']} items); lower it."
            )
    return funnel


def _counts(engine: Engine) -> dict[str, int]:
    names = ("interactions", "users", "items")
    row = engine.rows("SELECT count(*), count(DISTINCT u), count(DISTINCT i) FROM pairs")[0]
    return dict(zip(names, row, strict=True))


def _count(engine: Engine) -> int:
    return int(engine.rows("SELECT count(*) FROM pairs")[0][0])

"""Published forms that are not a table, rewritten as one line an interaction before an engine reads them."""

import csv
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from recsparse.errors import DataError
from recsparse.interactions.opening import open_lines

Rows = Iterator[tuple[str, ...]]


def adjacency(file: Path, lines: TextIO, missing: str | None) -> Rows:
    """LightGCN's form: a line is a user, then its items, all with a blank between."""
    for line in lines:
        user, *items = line.split() or [""]
        for item in items:
            yield user, item


def counted(file: Path, lines: TextIO, missing: str | None) -> Rows:
    """CiteULike's form: a line a user, the number of its items, then the items; users are numbered from 1."""
    for number, line in enumerate(lines, 1):
        count, *items = line.split() or ["0"]
        if count != str(len(items)):
            raise DataError(f"{file}, line {number} says it has {count} items and has {len(items)}.")
        for item in items:
            yield str(number), item


def netflix(file: Path, lines: TextIO, missing: str | None) -> Rows:
    """The Netflix Prize's form: a line ``item:``, then its lines ``user,rating,date``."""
    item = None
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.endswith(":"):
            item = text[:-1]
        elif text:
            parts = text.split(",")
            if item is None or len(parts) != 3:
                raise DataError(f"{file}, line {number}: {text!r} is neither `item:` nor `user,rating,date`.")
            yield parts[0], item, parts[1], parts[2]


def matrix(file: Path, lines: TextIO, missing: str | None) -> Rows:
    """Jester's form: a line a user, a column an item; the first column counts the user's ratings and is left out."""
    for number, values in enumerate(csv.reader(lines), 1):
        for item, value in enumerate(values[1:], 1):
            if value.strip() and value.strip() != missing:
                yield str(number), str(item), value


def impressions(file: Path, lines: TextIO, missing: str | None) -> Rows:
    """MIND's form: impression, user, time, history, and the items shown, each with ``-1`` if it was clicked."""
    for number, line in enumerate(lines, 1):
        parts = line.rstrip("\n").split("\t")
        if len(parts) != 5:
            raise DataError(f"{file}, line {number} has {len(parts)} columns, not the 5 of an impression.")
        try:
            moment = datetime.strptime(parts[2], "%m/%d/%Y %I:%M:%S %p").replace(tzinfo=UTC)
        except ValueError as error:
            raise DataError(
                f"{file}, line {number}: the time {parts[2]!r} is not like 11/15/2019 8:55:22 AM."
            ) from error
        for shown in parts[4].split():
            if shown.endswith("-1"):
                yield parts[1], shown[:-2], moment.strftime("%Y-%m-%d %H:%M:%S")


FORMS: dict[str, tuple[Callable[[Path, TextIO, str | None], Rows], tuple[str, ...]]] = {
    "counted": (counted, ("user_id", "item_id")),
    "adjacency": (adjacency, ("user_id", "item_id")),
    "impressions": (impressions, ("user_id", "item_id", "time")),
    "matrix": (matrix, ("user_id", "item_id", "rating")),
    "netflix": (netflix, ("user_id", "item_id", "rating", "date")),
}


def convert(form: str, files: tuple[Path, ...], target: Path, missing: str | None) -> tuple[str, ...]:
    """Write the files' interactions as one CSV without a header; give its columns.

    Raises:
        DataError: a line is not of this form.
    """
    function, names = FORMS[form]
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        for file in files:
            with open_lines(file) as lines:
                writer.writerows(function(file, lines, missing))
    if not target.stat().st_size:
        raise DataError(f"{files[0]} holds no interaction in the form {form!r}.")
    return names

"""The steps of one build, from files to the files of a dataset."""
# ruff: noqa: S608 (SQL is put together from our own names and from what the user's own source says)

from dataclasses import dataclass
from functools import partial as bind
from pathlib import Path
from typing import Any

from recsparse.errors import DataError
from recsparse.interactions.cleaning import Cleaning, drop_rare, filter_lines, merge_duplicates
from recsparse.interactions.download import Progress, digest
from recsparse.interactions.engine import Engine
from recsparse.interactions.features import join_features
from recsparse.interactions.growth import unroll
from recsparse.interactions.ids import id_type, number_ids
from recsparse.interactions.layout import find_layout
from recsparse.interactions.lines import read_lines, time_unit
from recsparse.interactions.source import Source
from recsparse.interactions.store import PART_ENTRIES, part_name, read_info, write_info, write_sorted, write_stream


@dataclass(frozen=True)
class Input:
    """What a build is made from."""

    source: Source
    root: Path
    cleaning: Cleaning
    old: Path | None = None
    """The dataset that the source is appended to."""


class Run:
    """One build: what its steps share."""

    def __init__(self, engine: Engine, given: Input, work: Path, tell: Progress) -> None:
        self.engine, self.given, self.work, self.tell = engine, given, work, tell
        self.source, self.root, self.cleaning = given.source, given.root, given.cleaning
        self.timed = self.source.ratings.time is not None
        self.t = ", t" if self.timed else ""
        self.old = read_info(given.old) if given.old else {}
        self.funnel: list[dict[str, Any]] = []
        self.files: dict[str, list[dict[str, str]]] = self.old.get("source", {"ratings": [], "users": [], "items": []})

    def fill(self, directory: Path, name: str) -> None:
        """Write the dataset's files into ``directory``."""
        self.encode()
        self.clean()
        self.write(directory, name)

    def encode(self) -> None:
        """Read and check the lines, then replace ids by codes."""
        spec, engine = self.source.ratings, self.engine
        self.tell("read", 0, None)
        layout = find_layout(spec, self.root, self.work / "ratings", spec.user, spec.item, spec.value, spec.time)
        self.remember("ratings", layout.files)
        self.unit = time_unit(spec, layout)
        lines = read_lines(engine, spec, layout)
        self.tell("read", lines, lines)
        condition, steps = filter_lines(engine, self.cleaning, self.timed)
        self.funnel += [{"step": "read", "before": {"lines": lines}, "after": {"lines": lines}}, *steps]
        if not self.funnel[-1]["after"]["lines"]:
            raise DataError(f"None of {lines} lines is left after {self.funnel[-1]['step']} ({self.cleaning!r}).")
        if self.cleaning.transform in {"log1p", "sqrt"}:
            least = engine.rows(f"SELECT min(value) FROM lines WHERE {condition}")[0][0]
            if least < 0:
                raise DataError(f"The lowest value is {least}; {self.cleaning.transform} needs values of at least 0.")
        self.tell("number", 0, None)
        known = {}
        if self.given.old:
            known = unroll(engine, self.given.old, self.work)
            for mine, before in zip(self.funnel, self.old["funnel"], strict=False):
                for side in ("before", "after"):
                    mine[side]["lines"] += before[side]["lines"]
        number_ids(engine, condition, known)
        self.kinds = self.old.get("ids") or {}
        for table in ("users", "items"):
            if self.kinds.get(table) != "STRING":  # a dataset of text ids takes any text
                self.kinds[table] = id_type(engine, spec, table, known=bool(self.old))
        value = self.cleaning.line_value
        select = (
            f"SELECT x.code AS u, y.code AS i, {value} AS value{self.t}, line FROM lines "
            f"JOIN users x ON lines.user_id = x.raw JOIN items y ON lines.item_id = y.raw WHERE {condition}"
        )
        if known:
            select += f" UNION ALL SELECT u, i, value{self.t}, CAST(-1 AS BIGINT) AS line FROM old_pairs"
        engine.create("pairs", select)
        engine.drop("lines")

    def clean(self) -> None:
        """Merge repeated pairs, leave out what is rare, and close the gaps in the rows."""
        self.tell("clean", 0, None)
        (n_items,) = self.engine.rows("SELECT count(*) FROM items")[0]
        merged = merge_duplicates(self.engine, self.cleaning, self.timed, n_items)
        if self.old:
            lines = self.old["funnel"][len(self.funnel)]["before"]["interactions"]
            merged["before"]["interactions"] += lines - self.old["counts"]["interactions"]
        self.funnel.append(merged)
        dropped = drop_rare(self.engine, self.cleaning)
        self.funnel += dropped
        if dropped:
            for table, axis in (("users", "u"), ("items", "i")):
                self.engine.create(
                    table,
                    f"SELECT id, code AS old, CAST(row_number() OVER (ORDER BY code) - 1 AS INT) AS code FROM {table} "
                    f"WHERE code IN (SELECT {axis} FROM pairs)",
                )
            self.engine.create(
                "pairs",
                f"SELECT x.code AS u, y.code AS i, value{self.t} FROM pairs "
                "JOIN users x ON pairs.u = x.old JOIN items y ON pairs.i = y.old",
            )

    def write(self, directory: Path, name: str) -> None:
        """Write users, items and parts, each part sorted on its own."""
        coverage: dict[str, Any] = self.old.get("features", {})
        selects = []
        for table, spec in (("users", self.source.users), ("items", self.source.items)):
            joined = join_features(
                self.engine, spec, table, id_kind=self.kinds[table], root=self.root, work=self.work, old=self.given.old
            )
            selects.append(joined.select)
            coverage |= {table: joined.coverage} if joined.coverage else {}
            self.remember(table, joined.files)
        self.engine.consume(
            selects, [bind(write_stream, file=directory / f"{table}.parquet") for table in ("users", "items")]
        )
        (directory / "interactions").mkdir()
        columns = f"u, i, CAST({self.cleaning.pair_value} AS FLOAT) AS value{self.t}"
        ranges = self._ranges()
        parts = self.engine.consume(
            [f"SELECT {columns} FROM pairs WHERE u >= {a} AND u < {b} ORDER BY u, i" for a, b in ranges],
            [
                bind(write_sorted, file=directory / "interactions" / part_name(number), first=a, last=b)
                for number, (a, b) in enumerate(ranges)
            ],
        )
        about = {
            "cleaning": self.cleaning.model_dump(exclude_defaults=True),
            "ids": self.kinds,
            "time_unit": self.unit,
            "funnel": self.funnel,
            "features": coverage,
            "source": self.files,
        }
        n_users, n_items = self.engine.rows("SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM items)")[0]
        write_info(directory, name, (n_users, n_items), parts, times=self.timed, about=about)

    def remember(self, role: str, files: tuple[Path, ...]) -> None:
        """Note what the dataset is made of."""
        mine = [{"file": file.name, "sha256": digest(file)} for file in files]
        self.files[role] += [each for each in mine if role == "ratings" or each not in self.files[role]]

    def _ranges(self) -> list[tuple[int, int]]:
        """Cut the users into parts of about :data:`PART_ENTRIES` interactions."""
        rows = self.engine.rows(
            "SELECT min(u), max(u) + 1 FROM (SELECT u, CAST(floor((sum(n) OVER (ORDER BY u) - n) / "
            f"{PART_ENTRIES}) AS BIGINT) AS part FROM (SELECT u, count(*) AS n FROM pairs GROUP BY u) counts) cuts "
            "GROUP BY part ORDER BY part"
        )
        return [(int(first), int(last)) for first, last in rows]

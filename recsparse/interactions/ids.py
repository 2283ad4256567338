"""Rows for ids: in the order in which they first appear, so that a dataset that grows keeps its rows."""
# ruff: noqa: S608 (SQL is put together from our own names and from what the user's own source says)

from recsparse.errors import DataError
from recsparse.interactions.engine import Engine
from recsparse.interactions.source import Ratings

INTEGER = "^(0|-?[1-9][0-9]{0,18})$"


def number_ids(engine: Engine, condition: str, known: dict[str, int]) -> None:
    """Make ``users`` and ``items`` (raw, id, code): codes 0, ... in order of the first line that is kept.

    Where the tables ``known_users`` and ``known_items`` (id, code) exist, ids found there keep their codes and new ones
    get the next.

    Args:
        engine: has the table ``lines``.
        condition: which lines are kept.
        known: how many users and items have codes already, ``{}`` for none.

    Raises:
        DataError: two ids are equal once blanks around them are gone, or only some ids are integers.
    """
    for table, column in (("users", "user_id"), ("items", "item_id")):
        engine.create(
            f"{table}_seen",
            f"SELECT {column} AS raw, trim({column}) AS id, min(line) AS first FROM lines WHERE {condition} "
            f"GROUP BY {column}",
        )
        _refuse_collisions(engine, table)
        if not known:
            select = f"SELECT raw, id, CAST(row_number() OVER (ORDER BY first) - 1 AS INT) AS code FROM {table}_seen"
        else:
            select = (
                f"SELECT s.raw, k.id, k.code FROM known_{table} k LEFT JOIN {table}_seen s ON s.id = k.id UNION ALL "
                f"SELECT s.raw, s.id, CAST({known[table]} + row_number() OVER (ORDER BY first) - 1 AS INT) AS code "
                f"FROM {table}_seen s WHERE NOT EXISTS (SELECT 1 FROM known_{table} k WHERE k.id = s.id)"
            )
        engine.create(table, select)
        engine.drop(f"{table}_seen")


def id_type(engine: Engine, spec: Ratings, table: str, *, known: bool) -> str:
    """Say whether the ids of ``users`` or ``items`` are ``BIGINT`` or ``STRING``.

    Raises:
        DataError: some are integers and some are not, also if those that are ``known`` (of the dataset that is appended
            to) are integers and text is asked for.
    """
    if spec.ids == "string" and not known:
        return "STRING"
    plain = f"regexp_like(id, '{INTEGER}') AND TRY_CAST(id AS BIGINT) IS NOT NULL"
    total, integers, one, other = engine.rows(
        f"SELECT count(*), count(CASE WHEN {plain} THEN 1 END), min(CASE WHEN {plain} THEN id END), "
        f"min(CASE WHEN NOT ({plain}) THEN id END) FROM {table}"
    )[0]
    if 0 < integers < total:
        raise DataError(
            f"Of {total} {table}, {integers} have an integer as id ({one!r}) and {total - integers} have "
            f"not ({other!r}); "
            'mend them, or keep all as text (ids = "string", --ids string).'
        )
    return "BIGINT" if integers else "STRING"


def _refuse_collisions(engine: Engine, table: str) -> None:
    same = engine.rows(f"SELECT id, min(raw), max(raw) FROM {table}_seen GROUP BY id HAVING count(*) > 1 LIMIT 1")
    if same:
        _, one, other = same[0]
        raise DataError(
            f"The {table[:-1]} ids {one!r} and {other!r} differ only in blanks around them; make them equal."
        )

"""Interactions made up at any scale, with what real ones have: a long tail, tastes to recover, features, drift."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from recsparse.errors import ConfigError
from recsparse.files import atomic_directory
from recsparse.interactions.download import Progress, silent

BLOCK = 1 << 20
TOPICS = 24
START = 1_577_836_800
"""1 January 2020, in seconds since the epoch."""
SPAN = 2 * 365 * 86_400
SKEW = 0.85
"""An item's share falls with its rank r in its topic as r ** -SKEW."""
OVERSAMPLE = 1.3
"""Pairs drawn for each pair that is missing, since some repeat."""
ROUNDS = 8
"""How often is drawn; what is then missing stays so."""


@dataclass(frozen=True)
class World:
    """What all blocks share; arrays as long as the items.

    Items belong to one topic each. A user likes one topic most (``MAIN`` of the draws), another one next (``SECOND``),
    and draws the rest from all topics.
    """

    by_topic: npt.NDArray[np.int64]
    """Items sorted by topic, most popular first, shape (I,)."""
    start: npt.NDArray[np.int64]
    """Where each topic starts there, shape (TOPICS + 1,)."""

    MAIN = 0.6
    SECOND = 0.25


def synthesise(
    directory: Path,
    *,
    users: int,
    items: int,
    interactions: int,
    seed: int = 0,
    form: Literal["csv", "parquet"] = "csv",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write ``ratings``, ``users`` and ``items`` files (CSV or Parquet) and ``synth.json``, as a stream.

    An interaction is drawn in three steps: a topic from the user's tastes; a rank r in the topic with probability
    proportional to ``r ** -0.85``; the item that holds the rank at that time, as ranks drift by 3 % of the topic
    in two years. Its rating 1 to 5 is higher for the topics the user likes. A user's number of interactions is
    log-normal. Users have the features ``taste`` (the topic liked most, right for nine of ten) and ``age``; items have
    ``topic`` and ``year``.

    Memory does not grow with the interactions: blocks of users are drawn one after the other, each from its own seed.

    Args:
        directory: where the files go; it appears whole.
        users: number of users.
        items: number of items; at least 24, the number of topics.
        interactions: how many to aim at; no pair is written twice, so that fewer result, a tenth where users have many
            of few items. ``synth.json`` says how many.
        seed: equal seeds give equal files.
        form: ``csv`` or ``parquet``.
        overwrite: replace an existing directory.
        progress: see :data:`recsparse.interactions.download.Progress`.

    Raises:
        ConfigError: a number is too small, or the matrix would be more than a quarter full.

    Example:
        >>> import tempfile
        >>> folder = synthesise(Path(tempfile.mkdtemp()) / "s", users=50, items=100, interactions=500, seed=1)
        >>> sorted(file.name for file in folder.iterdir())
        ['items.csv', 'ratings.csv', 'synth.json', 'users.csv']
    """
    if users < 1 or items < TOPICS or interactions < users:
        raise ConfigError(
            f"{users} users, {items} items, {interactions} interactions: there must be at least 1 user, "
            f"{TOPICS} items and one interaction a user."
        )
    if interactions > users * items / 4:
        raise ConfigError(f"{interactions} interactions fill more than a quarter of {users} x {items}; ask for fewer.")
    tell = progress or silent
    rng = np.random.default_rng([seed, 0])
    topic = np.sort(rng.integers(0, TOPICS, items))
    order = rng.permutation(items)
    world = World(order, np.searchsorted(topic, np.arange(TOPICS + 1)))
    counts = _activity(rng, users, items, interactions)
    main, second = rng.integers(0, TOPICS, (2, users))
    with atomic_directory(directory, overwrite=overwrite) as partial:
        written = 0
        with _writer(partial / f"ratings.{form}", form) as sink:
            for number, (first, last) in enumerate(_blocks(counts)):
                block = _draw(np.random.default_rng([seed, 1, number]), world, counts[first:last], main[first:last],
                              second[first:last], first)  # fmt: skip
                sink.write_table(block)
                written += block.num_rows
                tell("synth", written, interactions)
        _write(partial / f"users.{form}", form, _user_features(rng, main))
        _write(partial / f"items.{form}", form, _item_features(rng, order, topic))
        about = {"users": users, "items": items, "interactions": interactions, "seed": seed, "written": written}
        (partial / "synth.json").write_text(json.dumps(about, indent=1) + "\n")
    return Path(directory)


def _activity(rng: np.random.Generator, users: int, items: int, interactions: int) -> npt.NDArray[np.int64]:
    """Draw how many interactions each user has; they add up to about ``interactions``."""
    weight = rng.lognormal(0.0, 1.1, users)
    most = max(items // 3, 1)
    counts: npt.NDArray[np.int64] = np.clip(np.rint(weight * (interactions / weight.sum())), 1, most).astype(np.int64)
    return counts


def _blocks(counts: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    ends = np.cumsum(counts)
    cuts = np.searchsorted(ends, np.arange(BLOCK, ends[-1] + BLOCK, BLOCK), side="left") + 1
    edges = np.unique(np.clip(np.concatenate([[0], cuts]), 0, len(counts)))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _draw(
    rng: np.random.Generator, world: World, counts: npt.NDArray[np.int64], main: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64], first: int,
) -> pa.Table:  # fmt: skip
    """Draw the interactions of consecutive users, in order of user and time; pairs that repeat are drawn again."""
    joined = rng.random(len(counts)) * 0.8
    drawn: npt.NDArray[np.int64] = np.zeros((4, 0), dtype=np.int64)
    missing = counts
    for _ in range(ROUNDS):
        user = np.repeat(np.arange(len(counts)), np.ceil(missing * OVERSAMPLE).astype(np.int64))
        n = len(user)
        choice = rng.random(n)
        liked = np.select([choice < world.MAIN, choice < world.MAIN + world.SECOND], [2, 1], 0)
        topic = np.choose(liked, [rng.integers(0, TOPICS, n), second[user], main[user]])
        moment = joined[user] + rng.random(n) * (1 - joined[user]) * 0.5
        size = np.diff(world.start)[topic]
        rank = size * rng.random(n) ** (1 / (1 - SKEW)) + 0.03 * size * moment
        item = world.by_topic[world.start[topic] + rank.astype(np.int64) % np.maximum(size, 1)]
        rating = np.clip(np.rint(2.6 + 0.7 * liked + rng.normal(0, 0.8, n)), 1, 5).astype(np.int64)
        new = np.stack([user, item, rating, (START + moment * SPAN).astype(np.int64)])[:, size > 0]
        drawn = np.concatenate([drawn, new], axis=1)
        drawn = drawn[:, _unique(drawn[0], drawn[1], counts)]
        missing = counts - np.bincount(drawn[0], minlength=len(counts))
        if missing.sum() < counts.sum() // 100:
            break
    user, item, rating, seconds = drawn[:, np.lexsort((drawn[3], drawn[0]))]
    return pa.table(
        {"user_id": user + first + 1, "item_id": item + 1, "rating": rating.astype(np.int8), "timestamp": seconds}
    )


def _unique(
    user: npt.NDArray[np.int64], item: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Give the draws to keep: of each pair the first, of each user as many as wanted, the earliest drawn."""
    _, once = np.unique(user * (int(item.max(initial=0)) + 1) + item, return_index=True)
    once.sort()
    once = once[np.argsort(user[once], kind="stable")]
    owner = user[once]
    starts = np.searchsorted(owner, np.arange(len(counts)))
    kept: npt.NDArray[np.int64] = once[np.arange(len(once)) - starts[owner] < counts[owner]]
    return kept


def _user_features(rng: np.random.Generator, main: npt.NDArray[np.int64]) -> pa.Table:
    shown = np.where(rng.random(len(main)) < 0.9, main, rng.integers(0, TOPICS, len(main)))
    return pa.table(
        {
            "user_id": np.arange(len(main)) + 1,
            "taste": pa.DictionaryArray.from_arrays(shown.astype(np.int32), _names()).cast(pa.string()),
            "age": rng.integers(16, 80, len(main)),
        }
    )


def _item_features(rng: np.random.Generator, order: npt.NDArray[np.int64], topic: npt.NDArray[np.int64]) -> pa.Table:
    own = np.empty(len(order), dtype=np.int32)
    own[order] = topic
    return pa.table(
        {
            "item_id": np.arange(len(order)) + 1,
            "topic": pa.DictionaryArray.from_arrays(own, _names()).cast(pa.string()),
            "year": rng.integers(1990, 2022, len(order)),
        }
    )


def _names() -> list[str]:
    return [f"topic-{number:02d}" for number in range(TOPICS)]


RATINGS = pa.schema(
    [("user_id", pa.int64()), ("item_id", pa.int64()), ("rating", pa.int8()), ("timestamp", pa.int64())]
)


def _writer(file: Path, form: str) -> Any:
    if form == "csv":
        return pc.CSVWriter(file, RATINGS)
    return pq.ParquetWriter(file, RATINGS, compression="zstd")


def _write(file: Path, form: str, table: pa.Table) -> None:
    if form == "csv":
        pc.write_csv(table, file)
    else:
        pq.write_table(table, file, compression="zstd")

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsparse.errors import ConfigError
from recsparse.interactions import (
    Cleaning,
    Features,
    Ratings,
    Source,
    build,
    describe,
    read,
    split,
    synthesise,
    write_stats,
)
from recsparse.interactions.stats import spread
from tests.interactions.known import tree


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthesise(tmp_path_factory.mktemp("synth") / "s", users=2000, items=3000, interactions=60_000, seed=5)


def test_equal_seeds_give_equal_files_in_blocks_of_any_number(made: Path, tmp_path: Path) -> None:
    numbers = {"users": 2000, "items": 3000, "interactions": 60_000}
    assert tree(synthesise(tmp_path / "same", **numbers, seed=5)) == tree(made)
    assert tree(synthesise(tmp_path / "other", **numbers, seed=6)) != tree(made)
    synthesise(tmp_path / "p", **numbers, seed=5, form="parquet")
    assert pd.read_parquet(tmp_path / "p" / "ratings.parquet").equals(
        pd.read_csv(made / "ratings.csv").astype({"rating": "int8"})
    )


def test_blocks_are_streamed_and_do_not_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsparse.interactions.synth.BLOCK", 1000)
    told: list[int] = []
    folder = synthesise(
        tmp_path / "s", users=300, items=200, interactions=6000, progress=lambda *each: told.append(each[1])
    )
    lines = pd.read_csv(folder / "ratings.csv")
    assert len(told) >= 5
    assert told == sorted(told)
    assert told[-1] == len(lines)
    assert not lines.duplicated(["user_id", "item_id"]).any()
    assert lines["user_id"].nunique() == 300


def test_it_has_what_real_data_have(made: Path) -> None:
    lines = pd.read_csv(made / "ratings.csv")
    assert 0.95 < len(lines) / 60_000 <= 1.02
    assert spread(lines["item_id"].value_counts().to_numpy())["gini"] > 0.5
    assert spread(lines["user_id"].value_counts().to_numpy())["gini"] > 0.4
    topic = pd.read_csv(made / "items.csv").set_index("item_id")["topic"]
    taste = pd.read_csv(made / "users.csv").set_index("user_id")["taste"]
    own = lines["item_id"].map(topic).to_numpy() == lines["user_id"].map(taste).to_numpy()
    assert 0.35 < own.mean() < 0.7  # 1 / 24 by chance
    assert lines["rating"][own].mean() > lines["rating"][~own].mean() + 0.5
    assert lines["rating"].between(1, 5).all()
    early, late = (lines[lines["timestamp"].rank(pct=True).between(*each)] for each in ((0, 0.2), (0.8, 1)))
    top = [set(each["item_id"].value_counts().index[:60]) for each in (early, late)]
    assert 5 < len(top[0] & top[1]) < 50  # the popular ones change


def test_a_model_recovers_the_structure(made: Path, tmp_path: Path) -> None:
    """Item co-occurrence finds held-out items far better than popularity."""
    ratings = Ratings(path="ratings.csv", value="rating", time="timestamp")
    items = Features(path="items.csv", id="item_id", columns={"topic": "topic", "year": "year"})
    data = read(
        build(Source(ratings=ratings, items=items), tmp_path / "d", root=made, cleaning=Cleaning(transform="implicit"))
    )
    parts = split(data, "strong", seed=1)
    matrix = parts.train.matrix
    history, target = parts.test.history.matrix.toarray(), parts.test.target.matrix.toarray()
    scores = {
        "popularity": np.tile(matrix.sum(axis=0), (len(history), 1)).astype(float),
        "co-occurrence": history @ (matrix.T @ matrix).toarray() / np.sqrt(matrix.sum(axis=0) + 1),
    }
    recall = {}
    for name, score in scores.items():
        score[history > 0] = -np.inf
        top = np.argsort(-score, axis=1)[:, :20]
        recall[name] = np.take_along_axis(target, top, 1).sum() / target.sum()
    assert recall["co-occurrence"] > 2 * recall["popularity"]


def test_stats_match_pandas_and_the_page_stands_alone(made: Path, tmp_path: Path) -> None:
    source = Source(
        ratings=Ratings(path="ratings.csv", value="rating", time="timestamp"),
        users=Features(path="users.csv", id="user_id", columns={"taste": "taste"}),
    )
    directory = build(source, tmp_path / "d", root=made, name="<script>alert(1)</script>")
    lines = pd.read_csv(made / "ratings.csv")
    stats = describe(directory)
    counts = lines["item_id"].value_counts()
    assert stats.interactions == len(lines)
    assert stats.popularity["percentiles"]["50"] == counts.median()
    assert stats.popularity["percentiles"]["100"] == counts.max()
    assert stats.values == {f"{value}": n for value, n in sorted(lines["rating"].value_counts().items())}
    assert (stats.first_time, stats.last_time) == (lines["timestamp"].min(), lines["timestamp"].max())
    assert sum(stats.months.values()) == len(lines)
    assert stats.user_features == {"taste": 1.0}
    ascending = np.sort(counts.to_numpy()).astype(float)
    pairwise = np.abs(ascending[:, None] - ascending[None]).sum() / (2 * len(ascending) ** 2 * ascending.mean())
    assert stats.popularity["gini"] == pytest.approx(pairwise)
    write_stats(stats, tmp_path / "stats.html")
    page = (tmp_path / "stats.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert 'src="http' not in page


@pytest.mark.parametrize(
    ("numbers", "says"),
    [((0, 100, 10), "at least 1 user"), ((5, 10, 10), "24 items"), ((9, 100, 5), "one interaction a user"),
     ((10, 100, 900), "more than a quarter")],
)  # fmt: skip
def test_impossible_numbers_are_refused(numbers: tuple[int, int, int], says: str, tmp_path: Path) -> None:
    users, items, interactions = numbers
    with pytest.raises(ConfigError, match=says):
        synthesise(tmp_path / "s", users=users, items=items, interactions=interactions)

"""The same SQL on Spark, with real executors in processes of their own: the same bytes."""

from pathlib import Path

import pytest

from recsparse.errors import DataError
from recsparse.interactions import Cleaning, Features, Ratings, Source, append, build
from recsparse.interactions.spark import spark_engine
from tests.interactions.known import frame, tree

pytestmark = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
MASTER = "local-cluster[2,1,1024]"
QUICK = {"spark.sql.shuffle.partitions": "2", "spark.default.parallelism": "2"}
COLUMNS = {"user": "user_id", "item": "item_id", "value": "rating", "time": "timestamp"}


def test_both_engines_give_identical_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files, text ids, repeated pairs, a threshold, a minimum count, features with lists; several parts."""
    monkeypatch.setattr("recsparse.interactions.pipeline.PART_ENTRIES", 200)
    lines = frame(700, 60, 50, seed=2)
    lines["user_id"] = "ü " + lines["user_id"].astype(str)
    lines[:400].to_csv(tmp_path / "1.csv", index=False)
    lines[400:].to_csv(tmp_path / "2.csv", index=False)
    items = "".join(f"{5 + 11 * row}|It's \\{row}|a.b|c{row}\n" for row in range(50))
    (tmp_path / "items.txt").write_text(items.replace("|a.b|", "|a.b,"))
    features = Features(
        path="items.txt", delimiter="|", id=1, columns={"title": 2, "tags": {"position": 3, "separator": ","},
                                                        "first": {"sql": r"regexp_extract(c2, '\\([0-9]+)', 1)"}},
    )  # fmt: skip
    source = Source(ratings=Ratings(path="[12].csv", **COLUMNS), items=features)
    cleaning = Cleaning(min_value=1.5, min_user=3, transform="log1p")
    build(source, tmp_path / "duck" / "d", root=tmp_path, cleaning=cleaning)
    build(
        source, tmp_path / "spark" / "d", root=tmp_path, cleaning=cleaning, engine=spark_engine(MASTER, settings=QUICK)
    )
    duck = tree(tmp_path / "duck")
    assert len([name for name in duck if "part-" in name]) >= 3
    assert tree(tmp_path / "spark") == duck


@pytest.mark.slow
def test_k_core_appending_and_bad_lines_on_spark(tmp_path: Path) -> None:
    lines = frame(200, 20, 30, seed=4)
    lines[:120].to_csv(tmp_path / "1.csv", index=False)
    lines[120:].to_csv(tmp_path / "2.csv", index=False)
    first, second = (Source(ratings=Ratings(path=f"{n}.csv", **COLUMNS)) for n in (1, 2))
    both, core = Source(ratings=Ratings(path="[12].csv", **COLUMNS)), Cleaning(k_core=4, duplicates="sum")
    build(both, tmp_path / "core" / "d", root=tmp_path, cleaning=core)
    build(both, tmp_path / "spark" / "d", root=tmp_path, cleaning=core, engine=spark_engine(MASTER, settings=QUICK))
    assert tree(tmp_path / "spark") == tree(tmp_path / "core")
    build(both, tmp_path / "whole" / "d", root=tmp_path)
    grown = build(first, tmp_path / "grown" / "d", root=tmp_path)
    append(second, grown, root=tmp_path, engine=spark_engine(MASTER, settings=QUICK))
    assert tree(grown) == tree(tmp_path / "whole" / "d")
    for text, says in (
        ("user_id,item_id\n1,2\n1\n", "(?i)columns|malformed"),
        ("user_id,item_id\n1,2\n,3\n", "is missing"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(DataError, match=says):
            build(tmp_path / "bad.csv", tmp_path / "bad", engine=spark_engine("local[1]", settings=QUICK))
    assert not (tmp_path / "bad").exists()

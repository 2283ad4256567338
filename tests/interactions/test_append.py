from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsparse.errors import DataError
from recsparse.interactions import Cleaning, Features, Ratings, Source, append, build, read
from tests.interactions.known import as_dict, by_hand, frame, tree

RATINGS = {"user": "user_id", "item": "item_id", "value": "rating", "time": "timestamp"}


def days(folder: Path, lines: pd.DataFrame, cuts: list[int]) -> list[str]:
    edges = [0, *cuts, len(lines)]
    names = []
    for number, (start, stop) in enumerate(pairwise(edges)):
        names.append(f"day-{number}.csv")
        lines[start:stop].to_csv(folder / names[-1], index=False)
    return names


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 149), min_size=1, max_size=2, unique=True).map(sorted),
    cleaning=st.builds(
        Cleaning,
        duplicates=st.sampled_from(["last", "max", "sum", "count"]),
        min_value=st.sampled_from([None, 2.5]),
        since=st.sampled_from([None, 1_000_000_200]),
    ),
)
def test_appending_equals_building_from_everything(
    seed: int, cuts: list[int], cleaning: Cleaning, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("days")
    lines = frame(150, 12, 15, seed=seed)
    names = days(folder, lines, cuts)
    grown = folder / "grown" / "d"
    one = {"root": folder, "threads": 1}
    build(Source(ratings=Ratings(path=names[0], **RATINGS)), grown, cleaning=cleaning, **one)
    for name in names[1:]:
        append(Source(ratings=Ratings(path=name, **RATINGS)), grown, **one)
    build(Source(ratings=Ratings(path="day-*.csv", **RATINGS)), folder / "whole" / "d", cleaning=cleaning, **one)
    assert tree(grown) == tree(folder / "whole" / "d")


def test_known_rows_stay_and_new_ones_follow(tmp_path: Path) -> None:
    lines = frame(300, 90, 120, seed=4)
    days(tmp_path, lines, [100])
    directory = build(Source(ratings=Ratings(path="day-0.csv", **RATINGS)), tmp_path / "d", root=tmp_path)
    before = read(directory)
    append(Source(ratings=Ratings(path="day-1.csv", **RATINGS)), directory, root=tmp_path)
    after = read(directory)
    assert after.user_ids[: before.shape[0]].tolist() == before.user_ids.tolist()
    assert after.item_ids[: before.shape[1]].tolist() == before.item_ids.tolist()
    assert after.shape[0] > before.shape[0]
    assert as_dict(after) == by_hand(lines)


def test_increasing_transforms_append_too(tmp_path: Path) -> None:
    days(tmp_path, frame(200, seed=6), [90])
    for cleaning in (Cleaning(transform="log1p"), Cleaning(transform="implicit", min_value=3, duplicates="max")):
        source = Source(ratings=Ratings(path="day-0.csv", **RATINGS))
        grown = build(source, tmp_path / "grown" / "d", root=tmp_path, cleaning=cleaning, overwrite=True)
        append(Source(ratings=Ratings(path="day-1.csv", **RATINGS)), grown, root=tmp_path)
        source = Source(ratings=Ratings(path="day-*.csv", **RATINGS))
        build(source, tmp_path / "whole" / "d", root=tmp_path, cleaning=cleaning, overwrite=True)
        assert tree(grown) == tree(tmp_path / "whole" / "d")


def test_features_of_new_files_count_before_old_ones(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user_id,item_id\na,1\nb,1\n")
    (tmp_path / "2.csv").write_text("user_id,item_id\nc,1\na,2\n")
    (tmp_path / "u1.csv").write_text("id,age\na,30\nb,40\n")
    (tmp_path / "u2.csv").write_text("id,age\na,31\nc,50\n")

    def source(number: int, *, features: bool = True) -> Source:
        users = Features(path=f"u{number}.csv", id="id", columns={"age": "age"})
        return Source(ratings=Ratings(path=f"{number}.csv"), users=users if features else None)

    append(source(2), build(source(1), tmp_path / "d", root=tmp_path), root=tmp_path)
    assert read(tmp_path / "d").users.to_pylist() == [
        {"user_id": "a", "age": 31}, {"user_id": "b", "age": 40}, {"user_id": "c", "age": 50},
    ]  # fmt: skip
    append(source(2, features=False), build(source(1), tmp_path / "e", root=tmp_path), root=tmp_path)
    assert read(tmp_path / "e").users["age"].to_pylist() == [30, 40, None]
    other = source(2).model_copy(update={"users": Features(path="u2.csv", id="id", columns={"years": "age"})})
    with pytest.raises(DataError, match=r"gives the features \['years'\].*has \['age'\]"):
        append(other, tmp_path / "d", root=tmp_path)


def test_what_cannot_equal_a_rebuild_is_refused(tmp_path: Path) -> None:
    days(tmp_path, frame(), [200])
    first, second = (Source(ratings=Ratings(path=f"day-{n}.csv", **RATINGS)) for n in (0, 1))
    for cleaning in (Cleaning(k_core=2), Cleaning(min_user=2), Cleaning(duplicates="sum", transform="sqrt")):
        build(first, tmp_path / "d", root=tmp_path, cleaning=cleaning, overwrite=True)
        before = tree(tmp_path / "d")
        with pytest.raises(DataError, match="build it again from all files"):
            append(second, tmp_path / "d", root=tmp_path)
        assert tree(tmp_path / "d") == before
    build(first, tmp_path / "d", root=tmp_path, overwrite=True)
    with pytest.raises(DataError, match="has times and the new files have none"):
        append(Source(ratings=Ratings(path="day-1.csv")), tmp_path / "d", root=tmp_path)
    (tmp_path / "text.csv").write_text("user_id,item_id,rating,timestamp\nann,5,1,1000000000\n")
    for ids in ("auto", "string"):
        with pytest.raises(DataError, match="integer as id"):
            append(Source(ratings=Ratings(path="text.csv", ids=ids, **RATINGS)), tmp_path / "d", root=tmp_path)


def test_text_ids_take_any_text(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("user_id,item_id\n1,1\n2,1\n")
    (tmp_path / "2.csv").write_text("user_id,item_id\n3,1\nx,2\n")
    source = Source(ratings=Ratings(path="1.csv", ids="string"))
    directory = build(source, tmp_path / "d", root=tmp_path)
    append(tmp_path / "2.csv", directory)
    assert read(directory).user_ids.tolist() == ["1", "2", "3", "x"]

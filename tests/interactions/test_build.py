import gzip
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsparse.errors import DataError
from recsparse.interactions import Cleaning, Features, Ratings, Source, build, read
from recsparse.interactions.store import read_info
from tests.interactions.known import as_dict, by_hand, frame, tree

NAMED = {"user": "user_id", "item": "item_id", "value": "rating", "time": "timestamp"}
PLACED = {"user": 1, "item": 2, "value": 3, "time": 4}


def write_form(lines: pd.DataFrame, folder: Path, form: str) -> Ratings:  # noqa: PLR0911, PLR0912 (a form a branch)
    """Write the same lines in one of the forms people have, and say how to read them."""
    text = lines.to_csv(index=False)
    bare = lines.to_csv(index=False, header=False)
    match form:
        case "csv":
            (folder / "r.csv").write_text(text)
            return Ratings(path="r.csv", **NAMED)
        case "tsv without header":
            (folder / "r.tsv").write_text(bare.replace(",", "\t"))
            return Ratings(path="r.tsv", **PLACED)
        case "colons":
            (folder / "r.dat").write_text(bare.replace(",", "::"))
            return Ratings(path="r.dat", **PLACED)
        case "semicolons, quoted, CRLF":
            rows = ['"user_id";"item_id";"rating";"timestamp"', *bare.strip().replace(",", ";").splitlines()]
            (folder / "r.csv").write_bytes("\r\n".join(rows).encode())
            return Ratings(path="r.csv", **NAMED)
        case "gz":
            (folder / "r.csv.gz").write_bytes(gzip.compress(text.encode()))
            return Ratings(path="r.csv.gz", **NAMED)
        case "zst":
            with pa.output_stream(str(folder / "r.csv.zst"), compression="zstd") as out:
                out.write(text.encode())
            return Ratings(path="r.csv.zst", **NAMED)
        case "zip":
            with zipfile.ZipFile(folder / "r.zip", "w") as archive:
                archive.writestr("deep/r.csv", text)
            return Ratings(path="r.zip", **NAMED)
        case "json lines":
            lines.to_json(folder / "r.jsonl", orient="records", lines=True)
            return Ratings(path="r.jsonl", **NAMED)
        case "parquet":
            lines.to_parquet(folder / "r.parquet")
            return Ratings(path="r.parquet", **NAMED)
        case "glob":
            lines[:150].to_csv(folder / "day-1.csv", index=False)
            lines[150:].to_csv(folder / "day-2.csv", index=False)
            return Ratings(path="day-*.csv", **NAMED)
        case "directory":
            (folder / "days").mkdir()
            (folder / "days" / "README").write_text("not data")
            lines[:150].to_csv(folder / "days" / "1.csv", index=False)
            lines[150:].to_csv(folder / "days" / "2.csv", index=False)
            return Ratings(path="days", **NAMED)
        case "milliseconds":
            lines.assign(timestamp=lines["timestamp"] * 1000 + 999).to_csv(folder / "r.csv", index=False)
            return Ratings(path="r.csv", **NAMED)
        case "iso":
            moments = pd.to_datetime(lines["timestamp"], unit="s")
            lines.assign(timestamp=moments.dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_csv(folder / "r.csv", index=False)
            return Ratings(path="r.csv", **NAMED)
        case "parquet with timestamps":
            lines.assign(timestamp=pd.to_datetime(lines["timestamp"], unit="s")).to_parquet(folder / "r.parquet")
            return Ratings(path="r.parquet", **NAMED)
    raise AssertionError(form)


FORMS = [
    "csv", "tsv without header", "colons", "semicolons, quoted, CRLF", "gz", "zst", "zip", "json lines", "parquet",
    "glob", "directory", "milliseconds", "iso", "parquet with timestamps",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_matrix(form: str, tmp_path: Path) -> None:
    lines = frame()
    data = read(build(Source(ratings=write_form(lines, tmp_path, form)), tmp_path / "data", root=tmp_path))
    assert as_dict(data) == by_hand(lines)
    assert data.user_ids.tolist() == list(dict.fromkeys(lines["user_id"]))
    assert data.item_ids.tolist() == list(dict.fromkeys(lines["item_id"]))
    rows = np.repeat(np.arange(data.shape[0]), np.diff(data.matrix.indptr))
    assert (np.diff(rows * data.shape[1] + data.matrix.indices) > 0).all()


@pytest.mark.parametrize("duplicates", ["last", "max", "sum", "count"])
def test_repeated_pairs_merge_as_by_hand(duplicates: str, tmp_path: Path) -> None:
    lines = frame(seed=5)
    source = Source(ratings=write_form(lines, tmp_path, "csv"))
    data = read(build(source, tmp_path / "data", root=tmp_path, cleaning=Cleaning(duplicates=duplicates)))
    assert as_dict(data) == by_hand(lines, duplicates)


def test_the_last_line_counts_without_times_in_the_order_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,rating\n1,1,5\n1,1,4\n2,1,3\n")
    (tmp_path / "b.csv").write_text("user_id,item_id,rating\n2,1,1\n2,2,2\n")
    source = Source(ratings=Ratings(path="*.csv", value="rating"))
    data = read(build(source, tmp_path / "data", root=tmp_path))
    assert data.matrix.toarray().tolist() == [[4, 0], [1, 2]]


def test_order_of_lines_holds_across_threads_and_row_groups(tmp_path: Path) -> None:
    n = 300_000
    lines = pd.DataFrame({"user_id": np.random.default_rng(0).permutation(n) // 7, "item_id": np.arange(n) % 7})
    lines.to_csv(tmp_path / "r.csv", index=False)
    data = read(build(tmp_path / "r.csv", tmp_path / "data", threads=4))
    assert data.user_ids.tolist() == lines["user_id"].drop_duplicates().tolist()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["007", "7", "é漢"], ["007", "7", "é漢"]),
        (["7", "8", "-9"], [7, 8, -9]),
        (["9223372036854775807", "0", "1"], [9223372036854775807, 0, 1]),
        ([" a b ", '"q"', "it's"], ["a b", '"q"', "it's"]),
    ],
)
def test_ids_come_back_as_given(given: list[str], expected: list[object], tmp_path: Path) -> None:
    ids = "string" if isinstance(expected[0], str) else "auto"
    (tmp_path / "r.tsv").write_text("".join(f"{one}\t{place}\n" for place, one in enumerate(given)), encoding="utf-8")
    source = Source(ratings=Ratings(path="r.tsv", user=1, item=2, ids=ids))
    assert read(build(source, tmp_path / "data", root=tmp_path)).user_ids.tolist() == expected


def test_the_funnel_counts_every_step(tmp_path: Path) -> None:
    lines = frame(600, seed=8)
    cleaning = Cleaning(since=1_000_000_100, until=1_000_000_900, min_value=2, k_core=6, transform="implicit")
    build(Source(ratings=write_form(lines, tmp_path, "csv")), tmp_path / "data", root=tmp_path, cleaning=cleaning)
    funnel = {step["step"]: step for step in read_info(tmp_path / "data")["funnel"]}
    timely = lines[(lines["timestamp"] >= 1_000_000_100) & (lines["timestamp"] < 1_000_000_900)]
    good = timely[timely["rating"] >= 2]
    pairs = good.drop_duplicates(["user_id", "item_id"])
    assert funnel["read"]["after"] == {"lines": 600}
    assert funnel["time window"] == {"step": "time window", "before": {"lines": 600}, "after": {"lines": len(timely)}}
    assert funnel["min value"]["after"] == {"lines": len(good)}
    assert funnel["duplicates: last"] == {
        "step": "duplicates: last", "before": {"interactions": len(good)}, "after": {"interactions": len(pairs)},
    }  # fmt: skip
    while True:
        kept = pairs[(pairs.groupby("user_id")["item_id"].transform("size") >= 6)
                     & (pairs.groupby("item_id")["user_id"].transform("size") >= 6)]  # fmt: skip
        if len(kept) == len(pairs):
            break
        pairs = kept
    assert 0 < len(pairs) < len(good)
    assert funnel["6-core"]["after"]["interactions"] == len(pairs)
    data = read(tmp_path / "data")
    assert set(as_dict(data)) == set(zip(pairs["user_id"], pairs["item_id"], strict=True))
    assert (data.matrix.data == 1).all()
    assert np.diff(data.matrix.indptr).min() >= 6


def test_minimum_counts_take_items_first_then_users_once(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id\n1,1\n2,1\n1,2\n3,1\n3,3\n3,2\n")
    data = read(build(tmp_path / "r.csv", tmp_path / "data", cleaning=Cleaning(min_item=2, min_user=2)))
    # item 3 goes; then user 2, with one item left; item 1 keeps its two users, as counts are not taken again
    assert set(as_dict(data)) == {(1, 1), (1, 2), (3, 1), (3, 2)}


@pytest.mark.parametrize(("transform", "expected"), [("log1p", np.log1p(3)), ("sqrt", np.sqrt(3)), ("implicit", 1)])
def test_transforms_come_after_sums(transform: str, expected: float, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id,n\n1,1,1\n1,1,2\n")
    cleaning = Cleaning(duplicates="sum", transform=transform)
    data = read(
        build(Source(ratings=Ratings(path="r.csv", value="n")), tmp_path / "d", root=tmp_path, cleaning=cleaning)
    )
    assert data.matrix.data[0] == pytest.approx(expected)


def test_features_keep_their_types(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id\n1,a\n2,b\n3,a\n")
    (tmp_path / "u.csv").write_text("id,age,zip,score\n2,31,00501,1.5\n1,,94043,2\n9,70,1,3\n")
    pd.DataFrame({"id": ["b", "a"], "tags": [["x", "y"], []], "price": [1.5, None], "n": [1, 2]}).to_parquet(
        tmp_path / "i.parquet"
    )
    (tmp_path / "g.txt").write_text("a|Drama, Comedy|'89\nb||It's|\n".replace("It's|", "It's"))
    users = Features(
        path="u.csv", id="id", columns={"age": "age", "zip": {"name": "zip", "type": "string"}, "score": "score"}
    )
    items = Features(path="i.parquet", id="id", columns={"tags": "tags", "price": "price", "n": "n"})
    data = read(build(Source(ratings=Ratings(path="r.csv"), users=users, items=items), tmp_path / "d", root=tmp_path))
    assert data.users.to_pylist() == [
        {"user_id": 1, "age": None, "zip": "94043", "score": 2.0},
        {"user_id": 2, "age": 31, "zip": "00501", "score": 1.5},
        {"user_id": 3, "age": None, "zip": None, "score": None},
    ]
    assert data.items.to_pylist() == [
        {"item_id": "a", "tags": [], "price": None, "n": 2}, {"item_id": "b", "tags": ["x", "y"], "price": 1.5, "n": 1},
    ]  # fmt: skip
    assert read_info(tmp_path / "d")["features"]["users"] == {"lines": 3, "known": 2}
    genres = Features(
        path="g.txt", delimiter="|", id=1, columns={"genres": {"position": 2, "separator": ", "}, "when": 3}
    )
    data = read(build(Source(ratings=Ratings(path="r.csv"), items=genres), tmp_path / "e", root=tmp_path))
    assert data.items["genres"].to_pylist() == [["Drama", "Comedy"], None]
    assert data.items["when"].to_pylist() == ["'89", "It's"]


def test_a_condition_leaves_lines_out(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("1,game,purchase,1\n1,game,play,2.5\n2,game,purchase,1\n")
    ratings = Ratings(path="r.csv", user=1, item=2, value=4, where="c3 = 'play'")
    assert as_dict(read(build(Source(ratings=ratings), tmp_path / "d", root=tmp_path))) == {(1, "game"): (2.5, 0)}


def test_equal_input_gives_equal_bytes_at_any_thread_count_and_memory(tmp_path: Path) -> None:
    source = Source(ratings=write_form(frame(3000, 200, 100), tmp_path, "csv"))
    build(source, tmp_path / "one" / "d", root=tmp_path, threads=1, memory_limit="300MB")
    build(source, tmp_path / "two" / "d", root=tmp_path, threads=4)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_parts_and_row_groups_cut_between_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsparse.interactions.pipeline.PART_ENTRIES", 300)
    monkeypatch.setattr("recsparse.interactions.store.GROUP_ENTRIES", 64)
    lines = frame(2000, 80, 60)
    directory = build(Source(ratings=write_form(lines, tmp_path, "csv")), tmp_path / "d", root=tmp_path)
    info = read_info(directory)
    assert len(info["parts"]) > 3
    assert pq.read_metadata(directory / "interactions" / info["parts"][0]["file"]).num_row_groups > 2
    assert as_dict(read(directory)) == by_hand(lines)
    assert [part["first"] for part in info["parts"]] == list(
        np.cumsum([0, *[part["users"] for part in info["parts"]]])[:-1]
    )


def test_progress_tells_rows_and_the_directory_is_refused_or_replaced(tmp_path: Path) -> None:
    lines = frame()
    source, told = Source(ratings=write_form(lines, tmp_path, "csv")), []
    build(source, tmp_path / "d", root=tmp_path, progress=lambda *each: told.append(each))
    assert ("read", 400, 400) in told
    with pytest.raises(Exception, match="exists already"):
        build(source, tmp_path / "d", root=tmp_path)
    before = tree(tmp_path / "d")
    build(source, tmp_path / "d", root=tmp_path, overwrite=True)
    assert tree(tmp_path / "d") == before
    assert sorted(os.listdir(tmp_path)) == ["d", "r.csv"]


def test_the_description_names_the_input_and_nothing_of_this_machine(tmp_path: Path) -> None:
    build(Source(ratings=write_form(frame(), tmp_path, "csv")), tmp_path / "d", root=tmp_path)
    text = (tmp_path / "d" / "dataset.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["source"]["ratings"][0]["file"] == "r.csv"


def test_published_forms_that_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "adjacency.txt").write_text("0 5 7\n1 5\n2\n")
    (tmp_path / "counted.dat").write_text("2 5 7\n1 5\n0\n")
    (tmp_path / "mv_1.txt").write_text("1:\n10,3,2005-09-06\n11,5,2005-05-13\n")
    (tmp_path / "mv_2.txt").write_text("2:\n10,4,2005-10-19\n")
    (tmp_path / "jester.csv").write_text("2,-7.82,99,8.79\n1,99,99,0.5\n")
    (tmp_path / "behaviors.tsv").write_text(
        "1\tU1\t11/15/2019 8:55:22 AM\tN1\tN2-1 N3-0\n2\tU2\t11/15/2019 8:55:23 PM\t\tN2-0\n"
    )
    source = {
        "adjacency": Ratings(path="adjacency.txt", format="adjacency"),
        "counted": Ratings(path="counted.dat", format="counted"),
        "netflix": Ratings(path="mv_*.txt", format="netflix", value="rating", time="date"),
        "matrix": Ratings(path="jester.csv", format="matrix", value="rating", missing="99"),
        "impressions": Ratings(path="behaviors.tsv", format="impressions", time="time"),
    }
    found = {
        name: as_dict(read(build(Source(ratings=ratings), tmp_path / name, root=tmp_path)))
        for name, ratings in source.items()
    }
    assert found["adjacency"] == {(0, 5): (1, 0), (0, 7): (1, 0), (1, 5): (1, 0)}
    assert found["counted"] == {(1, 5): (1, 0), (1, 7): (1, 0), (2, 5): (1, 0)}
    assert found["netflix"] == {(10, 1): (3, 1125964800), (11, 1): (5, 1115942400), (10, 2): (4, 1129680000)}
    assert found["matrix"] == {
        (1, 1): (pytest.approx(-7.82), 0), (1, 3): (pytest.approx(8.79), 0), (2, 3): (0.5, 0),
    }  # fmt: skip
    assert found["impressions"] == {("U1", "N2"): (1, 1573808122)}


def test_a_source_is_described_or_refused_by_key() -> None:
    with pytest.raises(ValueError, match="exactly one of name, position and sql"):
        Ratings(user={"name": "a", "position": 1})
    with pytest.raises(ValueError, match="colour"):
        Cleaning(colour=1)
    with pytest.raises(DataError, match="no data file"):
        build("no-such-card-or-file", Path("nowhere"))

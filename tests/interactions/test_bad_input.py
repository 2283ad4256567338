"""Every way in which somebody's files are wrong: one clear sentence, and what was there before stays as it was."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from recsparse.errors import DataError, FormatError
from recsparse.interactions import Cleaning, Features, Ratings, Source, build, read, write
from tests.interactions.known import frame, tree

FULL = Ratings(path="r.csv", user="u", item="i", value="v", time="t")
HEAD = "u,i,v,t\n"
GOOD = "1,1,3,100\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("\n\n", "no text in its first line"),
        (HEAD, "holds no line of data"),
        ("user;item\n1;2\n", r"no column 'u'; it has user, item when cut at ';'"),
        (HEAD + GOOD + "1,2\n", r"r\.csv, line 3: Expected Number of Columns: 4 Found: 2; the line is '1,2'"),
        (HEAD + GOOD + "1,2,3,4,5\n", r"r\.csv, line 3: Expected Number of Columns: 4 Found: 5"),
        (
            HEAD + GOOD + "1,2,good,100\n",
            r"r\.csv, line 3: the value \(v\) is 'good'.*a finite number.*user '1' and item '2'",
        ),
        (HEAD + GOOD + "1,2,NaN,100\n", r"line 3: the value \(v\) is 'NaN'"),
        (HEAD + GOOD + "1,2,inf,100\n1,3,-inf,100\n", r"line 3: the value \(v\) is 'inf'.*2 such lines"),
        (HEAD + GOOD + "1,2,,100\n", r"line 3: the value \(v\) is missing"),
        (HEAD + GOOD + "1,2,3,-5\n", r"line 3: the time \(t\) is '-5'.*not negative"),
        (HEAD + GOOD + "1,2,3,yesterday\n", r"line 3: the time \(t\) is 'yesterday'.*seconds"),
        (HEAD + GOOD + ",2,3,100\n", r"line 3: the user \(u\) is missing"),
        (HEAD + GOOD + '1,"  ",3,100\n', r"line 3: the item \(i\) is missing"),
        (HEAD + GOOD + "x,2,3,100\n", r"1 have an integer as id \('1'\) and 1 have not \('x'\).*ids = \"string\""),
        (HEAD + GOOD + "01,2,3,100\n", r"1 have not \('01'\)"),
        (HEAD + GOOD + '" 1",2,3,100\n', r"user ids ' 1' and '1' differ only in blanks"),
        (HEAD + "99999999999999999999,2,3,100\n" + GOOD, "1 have not"),
    ],
)
def test_a_bad_line_is_named(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        build(Source(ratings=FULL), tmp_path / "d", root=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["r.csv"]


def test_a_header_read_as_data_is_suspected(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(HEAD + GOOD)
    with pytest.raises(DataError, match=r"line 1: the value \(column 3\) is 'v'.*header = true"):
        build(Source(ratings=Ratings(path="r.csv", user=1, item=2, value=3)), tmp_path / "d", root=tmp_path)


def test_a_wrong_delimiter_is_suspected(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(
        DataError, match="no column 'user_id'; it has user_id,item_id when cut at '\\|' \\(is that the delim"
    ):
        build(Source(ratings=Ratings(path="r.csv", delimiter="|")), tmp_path / "d", root=tmp_path)


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(HEAD + GOOD + "2,1,1,50\n")
    for cleaning, says in (
        (Cleaning(k_core=3), "Nothing is left after 3-core .*2 interactions of 2 users with 1 items"),
        (Cleaning(min_value=9), "None of 2 lines is left after min value"),
        (Cleaning(until=5), "None of 2 lines is left after time window"),
    ):
        with pytest.raises(DataError, match=says):
            build(Source(ratings=FULL), tmp_path / "d", root=tmp_path, cleaning=cleaning)


def test_steps_that_cannot_be_taken_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(HEAD + "1,1,-3,100\n")
    with pytest.raises(DataError, match=r"lowest value is -3.0; sqrt needs"):
        build(Source(ratings=FULL), tmp_path / "d", root=tmp_path, cleaning=Cleaning(transform="sqrt"))
    with pytest.raises(DataError, match="needs a time column"):
        build(Source(ratings=Ratings(path="r.csv", user="u", item="i")), tmp_path / "d", root=tmp_path,
              cleaning=Cleaning(since=1))  # fmt: skip


def test_bad_features_are_named(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id\n1,1\n2,1\n")
    cases = {
        "id,age\n1,3\n1,4\n": "2 lines for the id '1'",
        "id,age\n8,3\n9,4\n": "None of the 2 ids .* users' ids",
        "id,age\n1,old\n": "the age of '1' is 'old', not integer",
        "id\n1\n": "no column 'age'",
    }
    for text, says in cases.items():
        (tmp_path / "u.csv").write_text(text)
        users = Features(path="u.csv", delimiter=",", id="id", columns={"age": {"name": "age", "type": "integer"}})
        with pytest.raises(DataError, match=says):
            build(Source(ratings=Ratings(path="r.csv"), users=users), tmp_path / "d", root=tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "r.parquet")
    whole = (tmp_path / "r.parquet").read_bytes()
    for content in (whole[: len(whole) // 2], b"not parquet at all"):
        (tmp_path / "r.parquet").write_bytes(content)
        with pytest.raises(FormatError, match=r"r\.parquet is not a sound Parquet file"):
            build(tmp_path / "r.parquet", tmp_path / "d")
    (tmp_path / "r.csv.gz").write_bytes(b"\x1f\x8b but not gzip")
    with pytest.raises(FormatError, match=r"r\.csv\.gz cannot be read"):
        build(tmp_path / "r.csv.gz", tmp_path / "d")
    (tmp_path / "r.jsonl").write_text('{"user_id": 1, "item_id": 2}\n{"user_id": 1, "item')
    with pytest.raises((DataError, FormatError), match=r"(?i)json"):
        build(tmp_path / "r.jsonl", tmp_path / "d")
    (tmp_path / "r.csv").write_bytes(b"user_id,item_id\n\xff\xfe,2\n")
    with pytest.raises(DataError, match=r"r\.csv is not utf-8 text"):
        build(tmp_path / "r.csv", tmp_path / "d")
    pd.DataFrame({"user_id": [1.0, None], "item_id": [1, 2]}).to_parquet(tmp_path / "f.parquet")
    with pytest.raises(DataError, match="floating-point"):
        build(tmp_path / "f.parquet", tmp_path / "d")


def test_a_dataset_of_another_version_or_with_damage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id\n1,2\n2,2\n")
    directory = build(tmp_path / "r.csv", tmp_path / "d")
    text = (directory / "dataset.json").read_text()
    (directory / "dataset.json").write_text(text.replace('"format_version": 1', '"format_version": 9'))
    with pytest.raises(FormatError, match="format version 9; this release reads version 1"):
        read(directory)
    (directory / "dataset.json").write_text(text[:40])
    with pytest.raises(FormatError, match="damaged"):
        read(directory)
    (directory / "dataset.json").write_text(text)
    part = directory / "interactions" / "part-00000.parquet"
    content = part.read_bytes()
    part.write_bytes(content[:-20])
    with pytest.raises(FormatError, match=r"part-00000\.parquet cannot be read"):
        read(directory)
    part.write_bytes(content)
    pq.write_table(pq.read_table(directory / "users.parquet")[:1], directory / "users.parquet")
    with pytest.raises(FormatError, match=r"do not hold what dataset\.json says"):
        read(directory)
    with pytest.raises(FormatError, match=r"no dataset\.json"):
        read(tmp_path)


def test_a_failed_rebuild_leaves_the_old_directory(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(HEAD + GOOD)
    directory = build(Source(ratings=FULL), tmp_path / "d", root=tmp_path)
    before = tree(directory)
    (tmp_path / "r.csv").write_text(HEAD + GOOD + "1,2,bad,100\n")
    with pytest.raises(DataError):
        build(Source(ratings=FULL), directory, root=tmp_path, overwrite=True)
    assert tree(directory) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d", "r.csv"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from recsparse.errors import RecsparseError
from recsparse.interactions import build
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    build(Path(sys.argv[1]), Path(sys.argv[2]), overwrite=True)
except (RecsparseError, OSError) as error:
    print(type(error).__name__, error)
    sys.exit(7)
"""


@pytest.mark.parametrize("limit", [4096, 300_000])
def test_a_write_that_the_system_refuses_leaves_the_old_directory(limit: int, tmp_path: Path) -> None:
    """A real process whose files may not grow: what a full disk does, at two moments."""
    frame(20_000, 900, 800).to_csv(tmp_path / "r.csv", index=False)
    directory = build(tmp_path / "r.csv", tmp_path / "d")
    before = tree(directory)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path / "r.csv", directory, str(limit)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert "too large" in done.stdout.lower() or "full" in done.stdout.lower()
    assert tree(directory) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d", "r.csv"]


def test_out_of_memory_says_what_to_do(tmp_path: Path) -> None:
    frame(300_000, 40_000, 30_000).to_csv(tmp_path / "r.csv", index=False)
    with pytest.raises(DataError, match=r"memory limit is too small.*--memory"):
        build(tmp_path / "r.csv", tmp_path / "d", memory_limit="5MB")


def test_write_refuses_to_replace_unless_told(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id\n1,2\n")
    data = read(build(tmp_path / "r.csv", tmp_path / "d"))
    with pytest.raises(DataError, match="exists already"):
        write(data, tmp_path / "d")
    write(data, tmp_path / "d", overwrite=True)
    assert read(tmp_path / "d").nnz == 1

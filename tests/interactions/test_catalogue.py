"""Every card of the catalogue with a few lines in its real format, over a server on this machine if it has addresses."""

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from recsparse.interactions import build, list_cards, load_card, read
from recsparse.interactions.cards import _directory
from tests.interactions.known import as_dict
from tests.interactions.server import Behaviour, serve

MOVIES = "movieId,title,genres\n31,Dangerous Minds (1995),Drama\n"
ML = {"ratings.csv": "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n", "movies.csv": MOVIES}
DOTS = {"ratings.dat": "1::31::2.5::1260759144\n", "movies.dat": "31::Cité (1995)::Drama|War\n"}
TWEETS = {"ratings.dat": "1::0031::7::1260759144\n", "movies.dat": "0031::Cité (1995)::Drama|War\n"}
LIGHTGCN = {"train.txt": "0 10 11\n1 10\n", "test.txt": "0 12\n"}
EXPECTED_ML = {(1, 31): (2.5, 1260759144)}
EXPECTED_LIGHTGCN = {(0, 10): (1, 0), (0, 11): (1, 0), (1, 10): (1, 0), (0, 12): (1, 0)}

# ruff: noqa: E501 (lines of real files)
# name -> (files, what results)
CASES: dict[str, tuple[dict[str, str], dict[object, object]]] = {
    **dict.fromkeys(["ml-20m", "ml-25m", "ml-32m", "ml-latest-small"], (ML, EXPECTED_ML)),
    "ml-10m": (DOTS, EXPECTED_ML),
    "ml-1m": ({**DOTS, "users.dat": "1::F::1::10::48067\n"}, EXPECTED_ML),
    **dict.fromkeys(["gowalla", "yelp2018", "amazon-book"], (LIGHTGCN, EXPECTED_LIGHTGCN)),
    **dict.fromkeys(["movietweetings", "movietweetings-100k"], (TWEETS, {("1", "0031"): (7, 1260759144)})),
    "goodbooks-10k": (
        {
            "ratings.csv": "user_id,book_id,rating\n1,258,5\n",
            "books.csv": 'book_id,authors,original_publication_year,title,language_code\n258,"A B, C D",2001.0,"x, y",eng\n',
        },
        {(1, 258): (5, 0)},
    ),
    "book-crossing": (
        {"BX-Book-Ratings.csv": '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276726";"0155061224";"5"\n'},
        {("276725", "034545104X"): (0, 0), ("276726", "0155061224"): (5, 0)},
    ),
    "lastfm-360k": (
        {
            "usersha1-artmbid-artname-plays.tsv": "00000c\t3bd73256\tbetty blowtorch\t2137\n00000c\t\tdie \"Ärzte\"\t10\n"
            "00000c\t3bd73256\tbetty blowtorch\t3\n"
        },
        {("00000c", "3bd73256"): (2140, 0), ("00000c", 'die "Ärzte"'): (10, 0)},
    ),
    "lastfm-1k": (
        {
            "userid-timestamp-artid-artname-traid-traname.tsv": "user_000001\t2009-05-04T23:08:57Z\tf1b1cf71\tDeep Dish\t\tx\n"
            "user_000001\t2009-05-04T13:54:10Z\tf1b1cf71\tDeep Dish\t\ty\n"
        },
        {("user_000001", "f1b1cf71"): (2, 1241478537)},
    ),
    "lastfm-hetrec": ({"user_artists.dat": "userID\tartistID\tweight\n2\t51\t13883\n"}, {(2, 51): (13883, 0)}),
    "amazon-2023:Gift_Cards": (
        {"Gift_Cards.csv": "user_id,parent_asin,rating,timestamp\nAE2B,B0001234,5.0,1588687728923\n"},
        {("AE2B", "B0001234"): (5, 1588687728)},
    ),
    "citeulike-a": ({"users.dat": "2 5 7\n1 5\n"}, {(1, 5): (1, 0), (1, 7): (1, 0), (2, 5): (1, 0)}),
    "kuairec": (
        {
            "big_matrix.csv": "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
            "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.2733965\n"
        },
        {(0, 3649): (pytest.approx(1.2733965), 1593907703)},
    ),
    "mind-small": (
        {"behaviors.tsv": "1\tU13\t11/11/2019 9:05:58 AM\tN5 N6\tN9-1 N8-0\n", "news.tsv": "N9\tsports\tgolf\tA \"b\"\tx\tu\t[]\t[]\n"},
        {("U13", "N9"): (1, 1573463158)},
    ),
    "goodreads": (
        {"goodreads_interactions.csv": "user_id,book_id,is_read,rating,is_reviewed\n0,948,1,5,0\n0,947,1,0,1\n"},
        {(0, 948): (5, 0)},
    ),
    "netflix": ({"combined_data_1.txt": "1:\n10,3,2005-09-06\n"}, {(10, 1): (3, 1125964800)}),
    "jester": ({"jester-data-1.csv": "1,99,-3.5\n"}, {(1, 2): (-3.5, 0)}),
    "steam-200k": (
        {"steam-200k.csv": '15,"The Elder Scrolls V, Skyrim",purchase,1.0,0\n15,"The Elder Scrolls V, Skyrim",play,273.0,0\n'},
        {("15", "The Elder Scrolls V, Skyrim"): (273, 0)},
    ),
    "retailrocket": (
        {"events.csv": "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"},
        {(257597, 355908): (1, 1433221332)},
    ),
}  # fmt: skip
ELSEWHERE = {"ml-100k", "msd", "complete-journey"}


def test_no_card_is_left_out() -> None:
    assert {name.split(":")[0] for name in CASES} | ELSEWHERE == set(list_cards())


def packed(url: str, members: tuple[str, ...], files: dict[str, bytes]) -> bytes:
    """What lies at an address: the file itself, or an archive with the card's members and one more."""
    base = url.rsplit("/", 1)[-1]
    out = io.BytesIO()
    if base.endswith(".zip"):
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("README", "terms")
            for member in members or files:
                archive.writestr(member, files[Path(member).name])
        return out.getvalue()
    if base.endswith(".tar.gz"):
        with tarfile.open(fileobj=out, mode="w:gz") as archive:
            for member in members:
                entry = tarfile.TarInfo(member)
                entry.size = len(files[Path(member).name])
                archive.addfile(entry, io.BytesIO(files[Path(member).name]))
        return out.getvalue()
    return gzip.compress(files[base.removesuffix(".gz")]) if base.endswith(".gz") else files[base]


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_real_format_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, expected = CASES[name]
    origin = next((each for each in load_card(name).origins if each.urls), load_card(name).origins[0])
    encoded = {
        file: text.encode("latin-1" if file == "movies.dat" and name == "ml-1m" else "utf-8")
        for file, text in texts.items()
    }
    if not origin.urls:
        for file, content in encoded.items():
            (tmp_path / file).write_bytes(content)
        assert as_dict(read(build(name, tmp_path / "d", from_path=tmp_path))) == expected
        return
    stem = name.split(":", maxsplit=1)[0]
    text = (_directory() / f"{stem}.toml").read_text()
    (tmp_path / "cards").mkdir()
    monkeypatch.setattr("recsparse.interactions.cards._directory", lambda: tmp_path / "cards")
    served = {f"/{url.rsplit('/', 1)[-1]}": packed(url, origin.members, encoded) for url in origin.urls}
    with serve(Behaviour(served)) as server:
        for url in origin.urls:
            folder = url.rsplit("/", 1)[0]
            text = text.replace(folder, server.url)
        (tmp_path / "cards" / f"{stem}.toml").write_text(text)
        data = read(build(name, tmp_path / "d", cache=tmp_path / "cache"))
    assert as_dict(data) == expected
    if "genres" in data.items.column_names:
        assert data.items["genres"].to_pylist()[0][0] == "Drama"


def test_the_taste_profile_is_counted_as_the_paper_does(tmp_path: Path) -> None:
    """Small minimum counts stand for the card's 200 and 20, by the same steps."""
    from recsparse.interactions import Cleaning

    (tmp_path / "train_triplets.txt").write_text("b80\tSOA\t1\nb80\tSOB\t2\nc91\tSOA\t5\nc91\tSOB\t1\nd02\tSOA\t1\n")
    card = load_card("msd")
    assert card.cleaning == Cleaning(min_item=200, min_user=20, transform="implicit")
    small = Cleaning(min_item=2, min_user=2, transform="implicit")
    data = read(build("msd", tmp_path / "d", from_path=tmp_path, cleaning=small))
    assert set(as_dict(data)) == {("b80", "SOA"), ("b80", "SOB"), ("c91", "SOA"), ("c91", "SOB")}
    assert (data.matrix.data == 1).all()


def test_complete_journey_counts_receipt_lines(tmp_path: Path) -> None:
    moments = pd.to_datetime(["2017-01-01 11:53:26", "2017-01-02 10:00:00", "2017-01-03 09:00:00"])
    lines = {"household_id": [900, 900, 5], "product_id": [10, 10, 11], "transaction_timestamp": moments}
    pd.DataFrame(lines).to_parquet(tmp_path / "transactions.parquet")
    users = ["age", "income", "home_ownership", "household_size", "kids_count"]
    items = ["department", "brand", "product_category", "product_type"]
    pd.DataFrame({"household_id": [5]} | {name: ["x"] for name in users}).to_parquet(tmp_path / "demographics.parquet")
    pd.DataFrame({"product_id": [10, 11]} | {name: ["a", None] for name in items}).to_parquet(
        tmp_path / "products.parquet"
    )
    data = read(build("complete-journey", tmp_path / "d", from_path=tmp_path))
    assert as_dict(data) == {(900, 10): (2, 1483351200), (5, 11): (1, 1483434000)}
    assert data.items["department"].to_pylist() == ["a", None]
    assert data.users["age"].to_pylist() == [None, "x"]

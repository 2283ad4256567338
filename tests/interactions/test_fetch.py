"""Fetching from a server on this machine, with small files in each dataset's real format."""

import hashlib
import io
import os
import re
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from recsparse.errors import ConfigError, FetchError
from recsparse.interactions import Source, build, fetch, list_cards, load_card, published_split, read
from recsparse.interactions.cards import _directory, read_card
from recsparse.interactions.fetch import locate
from tests.interactions.known import as_dict
from tests.interactions.server import Behaviour, serve


def zipped(**members: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return out.getvalue()


RATINGS = "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n1,1029,3.0,1260759179\n7,31,4.5,851868750\n"
MOVIES = (
    'movieId,title,genres\n31,Dangerous Minds (1995),Drama\n1029,"Dumbo, ""the elephant"" (1941)",Animation|Musical\n'
)
ARCHIVE = zipped(**{"ml-20m/ratings.csv": RATINGS, "ml-20m/movies.csv": MOVIES, "ml-20m/README.txt": "terms"})


UseCard = Callable[[str, dict[str, str]], None]
GROUPLENS = "https://files.grouplens.org/datasets/movielens"


@pytest.fixture
def use_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UseCard:
    """Have only one card, with parts of its text replaced: its address by that of a server on this machine, say."""
    texts = {name: (_directory() / f"{name}.toml").read_text() for name in list_cards()}

    def use(name: str, replaced: dict[str, str]) -> None:
        text = texts[name]
        for old, new in replaced.items():
            assert old in text
            text = text.replace(old, new)
        folder = tmp_path / "cards"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.toml").write_text(text)
        monkeypatch.setattr("recsparse.interactions.cards._directory", lambda: folder)

    return use


def test_every_card_is_valid_and_says_what_it_must() -> None:
    assert len(list_cards()) >= 25
    for name in list_cards():
        card = load_card(f"{name}:Books" if name == "amazon-2023" else name)
        assert card.licence
        assert card.citation
        for origin in card.origins:
            known = origin.sha256 or set(origin.files_sha256) >= {Path(each).name for each in origin.members}
            assert known or card.checksum_note, f"{name} must say why a checksum is missing"


def test_a_card_is_named_or_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no dataset card 'ml-101k'; there are: amazon-2023, amazon-book"):
        load_card("ml-101k")
    with pytest.raises(ConfigError, match="is not one of: amazon-2023:All_Beauty"):
        load_card("amazon-2023:Boots")
    assert load_card("amazon-2023:Books").origins[0].urls[0].endswith("/Books.csv.gz")
    (tmp_path / "x.toml").write_text('titel = "X"\n')
    with pytest.raises(ConfigError, match=r"x\.toml: .*(titel|title)"):
        read_card(tmp_path / "x.toml")
    (tmp_path / "x.toml").write_text("title = ")
    with pytest.raises(ConfigError, match=r"x\.toml: Invalid value"):
        read_card(tmp_path / "x.toml")


def test_an_archive_is_fetched_once_and_built(tmp_path: Path, use_card: UseCard) -> None:
    with serve(Behaviour({"/ml-20m.zip": ARCHIVE})) as server:
        use_card("ml-20m", {GROUPLENS: server.url})
        data = read(build("ml-20m", tmp_path / "d", cache=tmp_path / "cache"))
        assert as_dict(data) == {(1, 31): (2.5, 1260759144), (1, 1029): (3, 1260759179), (7, 31): (4.5, 851868750)}
        assert data.items["genres"].to_pylist() == [["Drama"], ["Animation", "Musical"]]
        assert data.items["title"].to_pylist()[1] == 'Dumbo, "the elephant" (1941)'
        again = fetch("ml-20m", cache=tmp_path / "cache")
        assert len(server.asked) == 1
    assert sorted(file.name for file in again.iterdir()) == ["movies.csv", "ratings.csv"]
    assert fetch("ml-20m", cache=tmp_path / "cache") == again  # with no server at all


def test_origins_are_tried_in_order_and_failures_told_once(
    tmp_path: Path, use_card: UseCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    folder = "recbole/dataset_example/ml-100k/ml-100k"
    members = {
        f"{folder}.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n3\t4\t5\t99\n",
        f"{folder}.item": "i:token\tt:token_seq\ty:token\tc:token_seq\n4\tToy Story\t1995\tAnimation Comedy\n",
        f"{folder}.user": "user_id:token\tage:token\tg:token\to:token\tz:token\n3\t24\tM\ttechnician\t85711\n",
    }

    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert "--no-deps" in command
        folder = Path(command[command.index("--dest") + 1])
        (folder / "recbole-1.2.1-py3-none-any.whl").write_bytes(zipped(**members))
        return subprocess.CompletedProcess(command, 0)

    sums = re.findall(r'".{64}"', (_directory() / "ml-100k.toml").read_text())
    with serve(Behaviour(status=503)) as server:
        mine = [f'"{hashlib.sha256(text.encode()).hexdigest()}"' for text in members.values()]
        use_card("ml-100k", {GROUPLENS: server.url, **dict(zip(sums[-3:], mine, strict=True))})
        monkeypatch.setattr("recsparse.interactions.download.subprocess.run", pip)
        data = read(build("ml-100k", tmp_path / "d", cache=tmp_path / "c", progress=lambda *each: told.append(each[0])))
    assert [each for each in told if "failed" in each] == [each for each in told if "answered 503" in each]
    assert sum("answered 503" in each for each in told) == 1
    assert data.items.to_pylist() == [
        {"item_id": 4, "title": "Toy Story", "year": 1995, "genres": ["Animation", "Comedy"]}
    ]


def test_both_origins_of_ml_100k_give_the_same(tmp_path: Path) -> None:
    flags = {"unknown": 0, "Animation": 3, "Children's": 4, "Comedy": 5}

    def item(number: int, title: str, *genres: str) -> str:
        bits = ["0"] * 19
        for genre in genres:
            bits[flags[genre]] = "1"
        return "|".join([str(number), title, "01-Jan-1995", "", "http://x", *bits])

    official = tmp_path / "official"
    official.mkdir()
    (official / "u.data").write_text("3\t4\t5\t99\n3\t267\t1\t98\n3\t1412\t2\t97\n")
    (official / "u.user").write_text("3|24|M|technician|05711\n")
    items = [item(4, "Misérables, Les (1995) ", "Animation", "Children's", "Comedy"), item(267, "unknown", "unknown"),
             item(1412, "Land Before Time III: The Time (1995) (V)", "Animation")]  # fmt: skip
    (official / "u.item").write_bytes(("\n".join(items) + "\n").encode("latin-1"))
    wheel = tmp_path / "wheel"
    wheel.mkdir()
    (wheel / "ml-100k.inter").write_text("u\ti\tr\tt\n3\t4\t5\t99\n3\t267\t1\t98\n3\t1412\t2\t97\n")
    (wheel / "ml-100k.user").write_text("u:token\ta:token\tg:token\to:token\tz:token\n3\t24\tM\ttechnician\t05711\n")
    (wheel / "ml-100k.item").write_text(
        "i:token\tt:token_seq\ty:token\tc:token_seq\n4\tMisérables, Les\t1995\tAnimation Children's Comedy\n"
        "267\tunkonwn\tunkonwn\tunknown\n1412\tLand Before Time III: The Time (1995)\tV\tAnimation\n"
    )
    one, other = (
        read(build(_locate("ml-100k", folder), tmp_path / f"d-{folder.name}", root=folder))
        for folder in (official, wheel)
    )
    assert one.items.equals(other.items)
    assert one.users.equals(other.users)
    assert as_dict(one) == as_dict(other)
    assert one.items["year"].to_pylist() == [1995, None, 1995]
    assert one.items["title"].to_pylist()[2] == "Land Before Time III: The Time"


def _locate(name: str, folder: Path) -> Source:
    return locate(load_card(name), folder)


def test_a_wrong_checksum_or_no_network_says_what_to_do(tmp_path: Path, use_card: UseCard) -> None:
    with serve(Behaviour({"/ml-20m.zip": ARCHIVE})) as server:
        use_card(
            "ml-20m", {GROUPLENS: server.url, 'name = "grouplens"\n': f'name = "grouplens"\nsha256 = "{"0" * 64}"\n'}
        )
        with pytest.raises(FetchError, match=r"SHA-256 .* Get it from https://grouplens\.org.*--from PATH"):
            fetch("ml-20m", cache=tmp_path / "cache")
        bad = f'[origins.files_sha256]\n"ratings.csv" = "{"0" * 64}"\n\n[origins.read.items]'
        use_card("ml-20m", {GROUPLENS: server.url, "[origins.read.items]": bad})
        with pytest.raises(FetchError, match=r"ratings\.csv has SHA-256"):
            fetch("ml-20m", cache=tmp_path / "cache")
    assert not (tmp_path / "cache" / "ml-20m").exists()
    use_card("ml-20m", {GROUPLENS: server.url})
    with pytest.raises(FetchError, match="could not be fetched"):
        fetch("ml-20m", cache=tmp_path / "cache")


def test_files_the_user_has_are_used_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "ratings.csv").write_text(RATINGS)
    assert fetch("ml-20m", from_path=tmp_path / "mine", cache=tmp_path / "cache") == tmp_path / "mine"
    assert not (tmp_path / "cache").exists()
    (tmp_path / "ml-20m.zip").write_bytes(ARCHIVE)
    taken = fetch("ml-20m", from_path=tmp_path / "ml-20m.zip", cache=tmp_path / "cache")
    assert sorted(file.name for file in taken.iterdir()) == ["movies.csv", "ratings.csv"]
    with pytest.raises(FetchError, match=r"no ratings\.csv"):
        fetch("ml-20m", from_path=tmp_path / "cache")
    with pytest.raises(FetchError, match="does not exist"):
        fetch("ml-20m", from_path=tmp_path / "nothing")


def test_the_cache_is_where_the_variable_says(
    tmp_path: Path, use_card: UseCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSPARSE_CACHE", str(tmp_path / "mine"))
    with serve(Behaviour({"/ml-20m.zip": ARCHIVE})) as server:
        use_card("ml-20m", {GROUPLENS: server.url})
        assert fetch("ml-20m") == tmp_path / "mine" / "ml-20m"


def test_several_files_of_one_origin(tmp_path: Path, use_card: UseCard) -> None:
    files = {"/train.txt": b"0 10 11 12\n1 10 12\n", "/test.txt": b"0 13\n1 11\n"}
    with serve(Behaviour(files)) as server:
        address = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/master/data/yelp2018"
        use_card("yelp2018", {address: server.url})
        parts = published_split("yelp2018", cache=tmp_path, validation=0.5, seed=1)
    assert as_dict(parts.test.target) == {(0, 13): (1, 0), (1, 11): (1, 0)}
    assert parts.train.nnz + parts.validation.target.nnz == 5
    assert sorted(os.listdir(tmp_path / "yelp2018")) == ["test.txt", "train.txt"]


@pytest.mark.parametrize(
    ("name", "folder"), [("ml-1m", "ml-1m"), ("gowalla", "gowalla"), ("movietweetings-100k", "movietweetings-100k")]
)
def test_real_files_give_the_counts_on_the_card(name: str, folder: str, real_data: Path, tmp_path: Path) -> None:
    card = load_card(name)
    source = real_data / folder
    data = read(build(_locate(name, source), tmp_path / "d", root=source, cleaning=card.cleaning))
    assert (*data.shape, data.nnz) == (card.counts.users, card.counts.items, card.counts.interactions)

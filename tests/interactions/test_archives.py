import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from recsparse.errors import FetchError
from recsparse.interactions.archives import extract


def zipped(file: Path, members: dict[str, str]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file


def tarred(file: Path, members: dict[str, str], *, link: str | None = None) -> Path:
    with tarfile.open(file, "w:gz") as archive:
        for name, text in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
        if link:
            entry = tarfile.TarInfo("link")
            entry.type, entry.linkname = tarfile.SYMTYPE, link
            archive.addfile(entry)
    return file


@pytest.mark.parametrize("make", [zipped, tarred])
def test_members_are_taken_by_name_or_all_with_their_folders(make: object, tmp_path: Path) -> None:
    name = "a.zip" if make is zipped else "a.tar.gz"
    archive = make(tmp_path / name, {"top/one.txt": "1", "top/in/two.txt": "2"})
    (tmp_path / "some").mkdir()
    extract(archive, tmp_path / "some", ("top/in/two.txt",))
    assert [file.name for file in (tmp_path / "some").iterdir()] == ["two.txt"]
    (tmp_path / "all").mkdir()
    extract(archive, tmp_path / "all")
    assert (tmp_path / "all" / "top" / "in" / "two.txt").read_text() == "2"
    with pytest.raises(FetchError, match=r"no member 'three\.txt'"):
        extract(archive, tmp_path / "some", ("three.txt",))


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:/evil.txt"])
def test_nothing_lands_outside(make: object, name: str, tmp_path: Path) -> None:
    archive = make(tmp_path / ("a.zip" if make is zipped else "a.tar.gz"), {name: "evil"})
    (tmp_path / "deep" / "in").mkdir(parents=True)
    with pytest.raises(FetchError, match="outside its directory"):
        extract(archive, tmp_path / "deep" / "in")
    assert not list(tmp_path.rglob("evil.txt"))


def test_links_are_passed_over(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "a.tar.gz", {"one.txt": "1"}, link="/etc/passwd")
    (tmp_path / "out").mkdir()
    extract(archive, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["one.txt"]


def test_damage_is_an_error(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.zip", {"one.txt": "1" * 10_000}).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[:50])
    (tmp_path / "out").mkdir()
    with pytest.raises(FetchError, match="not a sound archive"):
        extract(tmp_path / "a.zip", tmp_path / "out")

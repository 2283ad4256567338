import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from recsparse.errors import FetchError
from recsparse.interactions.download import download
from tests.interactions.server import Behaviour, serve

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


def test_a_download_is_verified_and_tells_its_progress(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    with serve(Behaviour({"/a.zip": CONTENT})) as server:
        download(f"{server.url}/a.zip", tmp_path / "a.zip", sha256=SHA, progress=lambda *each: told.append(each))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert told[-1] == ("download a.zip", 3_000_000, 3_000_000)
    assert [file.name for file in tmp_path.iterdir()] == ["a.zip"]


def test_a_broken_connection_is_continued_where_it_broke(tmp_path: Path) -> None:
    with serve(Behaviour({"/a": CONTENT}, cut_after=1_000_000, cuts=2)) as server:
        download(f"{server.url}/a", tmp_path / "a", sha256=SHA)
        assert server.asked == [("/a", None), ("/a", "bytes=1000000-"), ("/a", "bytes=2000000-")]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(tmp_path: Path) -> None:
    with serve(Behaviour({"/a": CONTENT}, ranges=False, cut_after=1_000_000, cuts=1)) as server:
        download(f"{server.url}/a", tmp_path / "a", sha256=SHA)
        assert len(server.asked) == 2
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_without_a_validator_nothing_is_continued(tmp_path: Path) -> None:
    with serve(Behaviour({"/a": CONTENT}, validators=False, cut_after=1_000_000, cuts=1)) as server:
        download(f"{server.url}/a", tmp_path / "a", sha256=SHA)
        assert server.asked == [("/a", None), ("/a", None)]


def test_two_versions_never_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = CONTENT[::-1]
    with serve(Behaviour({"/a": CONTENT}, cut_after=500_000, cuts=1)) as server:
        with monkeypatch.context() as patched:
            patched.setattr("recsparse.interactions.download.ATTEMPTS", 1)
            with pytest.raises(FetchError):
                download(f"{server.url}/a", tmp_path / "a")
        assert (tmp_path / "a.part").stat().st_size == 500_000
        server.files["/a"] = changed
        download(f"{server.url}/a", tmp_path / "a")
        assert server.asked[-1] == ("/a", "bytes=500000-")
    assert (tmp_path / "a").read_bytes() == changed


def test_a_wrong_checksum_is_refused_and_not_kept(tmp_path: Path) -> None:
    with serve(Behaviour({"/a": CONTENT})) as server, pytest.raises(FetchError, match=f"SHA-256 {SHA}"):
        download(f"{server.url}/a", tmp_path / "a", sha256="0" * 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_is_told(status: int, tmp_path: Path) -> None:
    with (
        serve(Behaviour({"/a": CONTENT}, status=status)) as server,
        pytest.raises(FetchError, match=f"answered {status}"),
    ):
        download(f"{server.url}/a", tmp_path / "a")


def test_only_http_is_spoken_and_nobody_there_is_told_soon(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(FetchError, match="neither an http nor an https address"):
        download((tmp_path / "secret").as_uri(), tmp_path / "a")
    with serve(Behaviour()) as server:
        url = server.url
    start = time.perf_counter()
    with pytest.raises(FetchError, match="could not be downloaded"):
        download(f"{url}/a", tmp_path / "a")
    assert time.perf_counter() - start < 5


RUN = """
import sys
from pathlib import Path
from recsparse.interactions.download import download
print("ready", flush=True)
download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])
print("done", flush=True)
"""


def test_a_killed_download_resumes(tmp_path: Path) -> None:
    """Real processes, killed twice; the third needs only the rest."""
    command = [sys.executable, "-c", RUN]
    with serve(Behaviour({"/a": CONTENT}, pause=0.05)) as server:
        arguments = [f"{server.url}/a", str(tmp_path / "a"), SHA]
        sizes = []
        for _ in range(2):
            process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            process.stdout.readline()
            before = sizes[-1] if sizes else 0
            while not (tmp_path / "a.part").exists() or (tmp_path / "a.part").stat().st_size <= before:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
            sizes.append((tmp_path / "a.part").stat().st_size)
            assert not (tmp_path / "a").exists()
        assert 0 < sizes[0] < sizes[1] < len(CONTENT)
        server.pause = 0.0
        subprocess.run([*command, *arguments], check=True, capture_output=True, timeout=60)
        assert server.asked[1:] == [("/a", f"bytes={size}-") for size in sizes]
    assert (tmp_path / "a").read_bytes() == CONTENT

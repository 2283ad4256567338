import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from recsparse import files
from recsparse.errors import DataError
from recsparse.files import atomic_directory, atomic_file

ROOT = Path(files.__file__).parents[1]

WRITE_FILES = """
import itertools, sys
from pathlib import Path
from recsparse.files import atomic_file
for generation in itertools.count():
    with atomic_file(Path(sys.argv[1]) / "table") as partial, partial.open("wb") as stream:
        for _ in range(64):
            stream.write(bytes([generation % 256]) * 4096)
            stream.flush()
    print(generation, flush=True)
"""

WRITE_DIRECTORIES = """
import itertools, sys
from pathlib import Path
from recsparse.files import atomic_directory
for generation in itertools.count():
    with atomic_directory(Path(sys.argv[1]) / "table", overwrite=True) as partial:
        (partial / "parts").mkdir()
        for part in range(8):
            (partial / "parts" / str(part)).write_text(str(generation))
    print(generation, flush=True)
"""


def child(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def killed_in_flight(code: str, folder: Path, seconds: float) -> int:
    """Kill -9 a writing process some time after its first write; give the last generation that it said was done."""
    with child(code, folder) as process:
        assert process.stdout.readline() == "0\n", process.stderr.read()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
    assert process.returncode == -signal.SIGKILL
    return int(said[-1]) if said else 0


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_keeps_the_old_file_and_removes_the_new(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "table"
    target.write_text("old")
    with pytest.raises(error), atomic_file(target) as partial:  # noqa: PT012
        partial.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert left_in(tmp_path) == {"table"}


def test_a_file_is_replaced_and_its_folder_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "table"
    for text in ("first", "second"):
        with atomic_file(target) as partial:
            partial.write_text(text)
            assert partial.parent == target.parent  # on the same file system, or the rename could not be atomic
    assert target.read_text() == "second"
    assert left_in(target.parent) == {"table"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("existing", [True, False])
def test_an_error_keeps_the_old_directory_and_removes_the_new(
    tmp_path: Path, error: type[BaseException], existing: bool
) -> None:
    target = tmp_path / "data"
    if existing:
        target.mkdir()
        (target / "part").write_text("old")
    with pytest.raises(error), atomic_directory(target, overwrite=True) as partial:  # noqa: PT012
        (partial / "part").write_text("half")
        raise error
    assert left_in(tmp_path) == ({"data"} if existing else set())
    assert not existing or (target / "part").read_text() == "old"


def test_an_existing_directory_is_refused_before_any_work_and_replaced_whole_on_demand(tmp_path: Path) -> None:
    target = tmp_path / "data"
    with atomic_directory(target) as partial:
        (partial / "old part").write_text("old")
    with pytest.raises(DataError, match=r"data exists already; .*--overwrite"), atomic_directory(target):
        pytest.fail("the work began")
    with atomic_directory(target, overwrite=True) as partial:
        (partial / "new part").write_text("new")
        assert (target / "old part").read_text() == "old"
    assert left_in(target) == {"new part"}
    assert left_in(tmp_path) == {"data"}


def test_a_file_that_stands_where_a_directory_goes_is_replaced_too(tmp_path: Path) -> None:
    target = tmp_path / "data"
    target.write_text("a file")
    with atomic_directory(target, overwrite=True) as partial:
        (partial / "part").write_text("new")
    assert left_in(target) == {"part"}
    assert left_in(tmp_path) == {"data"}


def test_a_file_system_that_cannot_swap_gets_two_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_swap", lambda one, other: False)
    target = tmp_path / "data"
    for text in ("old", "new"):
        with atomic_directory(target, overwrite=True) as partial:
            (partial / "part").write_text(text)
    assert (target / "part").read_text() == "new"
    assert left_in(tmp_path) == {"data"}

    def refuse(self: Path, other: Path) -> None:
        if ".partial-" in self.name:
            raise OSError("no more renames")
        os.rename(self, other)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no more renames"), atomic_directory(target, overwrite=True) as partial:
        (partial / "part").write_text("half")
    assert (target / "part").read_text() == "new"
    assert left_in(tmp_path) == {"data"}


def test_a_file_is_whole_after_kill_9_at_any_moment(tmp_path: Path) -> None:
    for seconds in random.Random(0).choices([0, 0.002, 0.005, 0.01, 0.02, 0.03], k=12):
        said = killed_in_flight(WRITE_FILES, tmp_path, seconds)
        content = (tmp_path / "table").read_bytes()
        assert content == content[:1] * (64 * 4096)
        assert content[0] in {said % 256, (said + 1) % 256}  # what was said to be written is there
    assert {name for name in left_in(tmp_path) if not name.startswith(".table.partial-")} == {"table"}


def test_a_directory_is_whole_after_kill_9_at_any_moment(tmp_path: Path) -> None:
    for seconds in random.Random(1).choices([0, 0.002, 0.005, 0.01, 0.02, 0.03], k=12):
        said = killed_in_flight(WRITE_DIRECTORIES, tmp_path, seconds)
        parts = [part.read_text() for part in sorted((tmp_path / "table" / "parts").iterdir())]
        assert len(parts) == 8
        assert len(set(parts)) == 1
        assert int(parts[0]) in {said, said + 1}


def test_a_reader_beside_a_writer_always_finds_a_whole_directory(tmp_path: Path) -> None:
    with child(WRITE_DIRECTORIES, tmp_path) as writer:
        assert writer.stdout.readline() == "0\n"
        until, looks, generations = time.monotonic() + 60, 0, set()
        while len(generations) < 20 and time.monotonic() < until:
            folder = os.open(tmp_path / "table", os.O_RDONLY)  # never absent, not even during the swap
            looks += 1
            try:
                generations.add(Path(f"/proc/self/fd/{folder}/parts/0").read_text())
            except FileNotFoundError:
                pass  # the old one, opened just before it was replaced and removed
            finally:
                os.close(folder)
        writer.kill()
    assert len(generations) == 20 <= looks


def test_two_writers_of_one_file_leave_the_whole_of_one(tmp_path: Path) -> None:
    def write(letter: str) -> None:
        for _ in range(20):
            with atomic_file(tmp_path / "table") as partial:
                partial.write_text(letter * 100_000)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "table").read_text() in {"a" * 100_000, "b" * 100_000}
    assert left_in(tmp_path) == {"table"}


FILL = """
import sys
from pathlib import Path
from recsparse.files import atomic_directory, atomic_file
folder = Path(sys.argv[1])
with atomic_file(folder / "table") as partial:
    partial.write_text("old")
with atomic_directory(folder / "data") as partial:
    (partial / "part").write_text("old")
for write in (lambda: atomic_file(folder / "table"), lambda: atomic_directory(folder / "data", overwrite=True)):
    try:
        with write() as partial:
            (partial / "part" if partial.is_dir() else partial).write_bytes(bytes(1 << 20))
    except OSError as error:
        print(error.strerror)
print((folder / "table").read_text(), (folder / "data" / "part").read_text(), *sorted(p.name for p in folder.iterdir()))
"""


def test_a_full_disk_keeps_the_old_state(tmp_path: Path) -> None:
    if not shutil.which("unshare"):
        pytest.skip("a small file system needs unshare")
    mount = f"mount -t tmpfs -o size=256k none '{tmp_path}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets us mount no small file system")
    shell = f'{mount} && exec "$0" -c "$1" \'{tmp_path}\''
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell, sys.executable, FILL],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "No space left on device\n" * 2 + "old old data table\n"


def test_a_size_limit_keeps_the_old_state(tmp_path: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with child(FILL, tmp_path, preexec_fn=limit, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}) as process:
        output, errors = process.communicate()
    assert output == "File too large\n" * 2 + "old old data table\n", errors

"""Real processes, killed for good at many moments: what was there is there, and the next run succeeds."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from recsparse.interactions import Ratings, Source, append, build, read
from tests.interactions.known import as_dict, by_hand, frame, tree

RUN = """
import sys
from pathlib import Path
from recsparse.interactions import Ratings, Source, append, build
print("ready", flush=True)
source = Source(ratings=Ratings(path=sys.argv[2], user="user_id", item="item_id", value="rating", time="timestamp"))
if sys.argv[1] == "append":
    append(source, Path(sys.argv[3]), threads=1)
else:
    build(source, Path(sys.argv[3]), overwrite=True, threads=1)
print("done", flush=True)
"""


def run_and_kill(what: str, source: Path, directory: Path, seconds: float) -> bool:
    """Start the real thing, kill it after a while; say whether it was still at work."""
    process = subprocess.Popen([sys.executable, "-c", RUN, what, source, directory], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.wait()
    process.stdout.close()
    return "done" not in rest


@pytest.mark.parametrize("what", ["build", pytest.param("append", marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_directory(what: str, tmp_path: Path) -> None:
    old_lines, new_lines = frame(3000, 200, 150, seed=1), frame(60_000, 900, 700, seed=2)
    old_lines.to_csv(tmp_path / "old.csv", index=False)
    new_lines.to_csv(tmp_path / "new.csv", index=False)
    columns = {"user": "user_id", "item": "item_id", "value": "rating", "time": "timestamp"}
    old_source = Source(ratings=Ratings(path=str(tmp_path / "old.csv"), **columns))
    new_source = Source(ratings=Ratings(path=str(tmp_path / "new.csv"), **columns))
    data = build(old_source, tmp_path / "data" / "d")
    before = tree(data)
    build(old_source, tmp_path / "expected" / "d")
    start = time.perf_counter()
    if what == "append":
        append(new_source, tmp_path / "expected" / "d")
    else:
        build(new_source, tmp_path / "expected" / "d", overwrite=True)
    whole = time.perf_counter() - start
    after = tree(tmp_path / "expected" / "d")
    killed = 0
    for moment in np.linspace(0.02, whole * 1.2, 4):
        killed += run_and_kill(what, tmp_path / "new.csv", data, float(moment))
        found = tree(data)
        assert found in (before, after)
        if found == after:
            break
    assert killed >= 1
    if tree(data) == before:  # the next run succeeds, and clears away what the killed ones were writing
        append(new_source, data) if what == "append" else build(new_source, data, overwrite=True)
    assert tree(data) == after
    assert read(data).nnz > 0
    assert [file.name for file in data.parent.iterdir()] == ["d"]


def test_two_appends_at_once_lose_nothing(tmp_path: Path) -> None:
    """The second waits for the first, and takes its result for granted."""
    lines = frame(900, 50, 60, seed=3)
    for number in range(3):
        lines[number * 300 : number * 300 + 300].to_csv(tmp_path / f"{number}.csv", index=False)
    columns = {"user": "user_id", "item": "item_id", "value": "rating", "time": "timestamp"}
    data = build(Source(ratings=Ratings(path=str(tmp_path / "0.csv"), **columns)), tmp_path / "data" / "d")
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda n: append(Source(ratings=Ratings(path=str(tmp_path / f"{n}.csv"), **columns)), data), (1, 2)
            )
        )
    assert as_dict(read(data)) == by_hand(lines)

"""Failure with real processes: kill -9, two writers, a full disk, a limit on memory."""

import re
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from recsparse.errors import RecsparseError
from recsparse.interactions import Interactions
from recsparse.models import Popularity
from recsparse.scoring import Job, recommend_to_parquet

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys, time
from recsparse.scoring import Job, recommend_to_parquet
pause = float(sys.argv[3])

def tell(progress):
    print(progress.done, flush=True)
    time.sleep(pause)

summary = recommend_to_parquet(sys.argv[1], sys.argv[2], Job(k=5, part_users=15), progress=tell)
print("scored", summary.scored, flush=True)
"""
PARTS = 20


@contextmanager
def start(model, out, pause=0.0, **options):
    """A scorer in a process of its own, gone at the end of the block whatever happens in it."""
    command = [sys.executable, "-c", SCRIPT, str(model), str(out), str(pause)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(model, out, **options):
    with start(model, out, **options) as process:
        output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors


def whole_parts(out):
    return {file.name: file.read_bytes() for file in out.glob("part-*.parquet")}


@pytest.fixture(scope="module")
def expected(model_directory, tmp_path_factory):
    out = tmp_path_factory.mktemp("expected") / "out"
    recommend_to_parquet(model_directory, out, Job(k=5, part_users=15))
    return whole_parts(out)


def test_killed_at_any_moment_it_goes_on_where_it_was(model_directory, tmp_path, expected):
    out = tmp_path / "out"
    rng = np.random.default_rng(0)
    for lines in (3, 6):
        with start(model_directory, out, pause=0.02) as process:
            for _ in range(lines):
                assert process.stdout.readline()
            time.sleep(rng.random() * 0.03)
            process.send_signal(signal.SIGKILL)
            process.wait()
        done = whole_parts(out)
        assert len(done) < PARTS
        assert done.items() <= expected.items()  # whatever has its name is whole
    assert done
    stamps = {file.name: file.stat().st_mtime_ns for file in out.glob("part-*.parquet")}

    code, output, errors = run(model_directory, out)

    assert code == 0, errors
    assert f"scored {300 - 15 * len(done)}" in output
    assert whole_parts(out) == expected
    assert {name: (out / name).stat().st_mtime_ns for name in stamps} == stamps
    assert not list(out.glob(".*partial*"))


def test_two_scorers_in_one_directory(model_directory, tmp_path, expected):
    out = tmp_path / "out"
    with start(model_directory, out, pause=5) as first:
        assert first.stdout.readline()
        code, _, errors = run(model_directory, out)
        assert code != 0
        assert re.search(r"DataError: Another process is writing part 0 .*its own shard", errors)
        assert first.poll() is None
    code, _, errors = run(model_directory, out)  # the hold has ended with the process
    assert code == 0, errors
    assert whole_parts(out) == expected


def test_a_full_disk_leaves_whole_parts_and_one_sentence(model_directory, tmp_path, expected):
    out = tmp_path / "out"
    largest = max(len(part) for part in expected.values())

    def no_room():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, largest - 1))

    code, _, errors = run(model_directory, out, preexec_fn=no_room)

    assert code != 0
    assert re.search(r"RecsparseError: Part \d+ cannot be written to .*Make room and run again", errors)
    assert whole_parts(out).items() < expected.items()
    assert not list(out.glob(".*partial*"))
    assert run(model_directory, out)[0] == 0
    assert whole_parts(out) == expected


def test_a_write_that_fails_is_one_sentence(model_directory, tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(RecsparseError, match=r"No space left on device.*finished parts stay"):
        recommend_to_parquet(model_directory, tmp_path / "out", Job(k=5))
    assert [file.name for file in tmp_path.glob("out/*part*")] == []


MEMORY = """
import sys
from pathlib import Path
from recsparse.scoring import Job, recommend_to_parquet
limit = sys.argv[3] if sys.argv[3] != "none" else None
summary = recommend_to_parquet(sys.argv[1], sys.argv[2], Job(k=200, memory=limit))
status = Path("/proc/self/status").read_text()  # ru_maxrss would be the tests' own, which a new process takes over
print(int(status.partition("VmHWM:")[2].split()[0]) * 1024, summary.complete)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what a process held at most")
def test_the_memory_limit_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    matrix = sp.random_array((60_000, 5_000), density=0.002, rng=rng, dtype=np.float32).tocsr()
    Popularity().fit(Interactions.from_csr(matrix)).save(tmp_path / "model")
    peaks = {}
    for limit in ("none", "700MiB"):
        command = [sys.executable, "-c", MEMORY, str(tmp_path / "model"), str(tmp_path / limit), limit]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        peaks[limit] = int(done.stdout.split()[0])
        assert done.stdout.split()[1] == "True"
    assert peaks["700MiB"] <= 700 << 20 < peaks["none"]

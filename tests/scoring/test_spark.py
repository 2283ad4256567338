import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from recsparse.errors import DataError, RecsparseError
from recsparse.scoring import Filters, Job, recommend_to_parquet

pytestmark = pytest.mark.spark
CLUSTER = "local-cluster[2,1,1024]"
JOB = Job(k=5, part_users=15)


def parts(directory):
    return {file.name: file.read_bytes() for file in directory.glob("part-*.parquet")}


def executors():
    """Processes of executors that descend from this one."""
    found, parents = [], {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if b"CoarseGrainedExecutorBackend" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue  # it has ended meanwhile

    def ours(pid):
        while pid > 1:
            if pid == os.getpid():
                return True
            pid = parents.get(pid, 0)
        return False

    return [pid for pid in found if ours(pid)]


def test_an_executor_killed_midway_changes_nothing(model_directory, strangers_directory, tmp_path):
    from recsparse.scoring.spark import recommend_on_spark

    job = replace(JOB, histories=strangers_directory, part_users=2, filters=Filters(deny=[7]))
    recommend_to_parquet(model_directory, tmp_path / "local", job)
    out, killed = tmp_path / "spark", []

    def kill_one():
        while not (parts(out) and executors()):
            time.sleep(0.01)
        killed.append(executors()[0])
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill_one)
    thread.start()
    summary = recommend_on_spark(model_directory, out, job, master=CLUSTER)
    thread.join()

    assert killed
    assert summary.complete
    assert summary.users == 70
    assert parts(out) == parts(tmp_path / "local")
    assert not list(out.glob(".*partial*"))


def test_it_goes_on_where_one_machine_stopped_and_says_what_went_wrong(ials, tmp_path):
    from recsparse.scoring.spark import recommend_on_spark

    recommend_to_parquet(ials, tmp_path / "local", JOB)
    recommend_to_parquet(ials, tmp_path / "out", JOB, shard=(1, 3))
    summary = recommend_on_spark(ials, tmp_path / "out", JOB, master="local[2]")
    assert (summary.users, summary.scored, summary.complete) == (300, 300 - 7 * 15, True)
    assert parts(tmp_path / "out") == parts(tmp_path / "local")

    with pytest.raises(DataError, match="k was 5, is 6"):
        recommend_on_spark(ials, tmp_path / "out", replace(JOB, k=6), master="local[2]")

    (tmp_path / "out" / "part-00004.parquet").unlink()
    (tmp_path / "out" / "part-00004.parquet").mkdir()  # cannot be replaced by a file
    with pytest.raises(RecsparseError):
        recommend_on_spark(ials, tmp_path / "out", JOB, master="local[2]")

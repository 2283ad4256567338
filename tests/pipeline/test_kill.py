"""A run killed at any moment, then run again, ends with the figures of one that nobody disturbed."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest

PATIENCE = 300
"""Seconds after which a process that was killed, or left alone, is taken to hang."""


@pytest.fixture
def start(tmp_path, text):
    """Start the real command; its log is on ``stderr``."""
    file = tmp_path / "tiny.toml"
    file.write_text(text)

    def popen():
        command = [sys.executable, "-m", "recsparse", "run", str(file), "-o", str(tmp_path / "run"), "--json"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return popen


def kill_soon(process, seconds):
    """Kill the process that long after its first stage began; give whether it was still at work.

    A run that ended before an earlier kill reached it has no stage left, and says nothing.
    """
    with process:
        if process.stderr.readline():
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in {0, -signal.SIGKILL}, err
    return process.returncode == -signal.SIGKILL


def check_whole(directory):
    """What a reader may find at any time is whole: JSON parses, and what has a stamp has its files."""
    for file in directory.rglob("*.json"):
        if ".partial-" not in str(file):
            json.loads(file.read_text())
    for stamp in directory.glob("evaluations/*/_stamp.json"):
        assert (stamp.parent / "test.parquet").exists()


def disturbed(start, directory, kills):
    seed = time.time_ns()
    print("seed of the moments:", seed)  # noqa: T201 (pytest shows it where the test fails)
    chance = random.Random(seed)
    killed = sum(1 for _ in range(kills) if _disturb(start, directory, chance))
    process = start()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert json.loads(out)["ship"]
    assert not list(directory.rglob(".*partial*"))
    return killed


def _disturb(start, directory, chance):
    killed = kill_soon(start(), chance.uniform(0, 2.0))
    check_whole(directory)
    return killed


def figures(directory):
    document = json.loads((directory / "results.json").read_text())
    rows = [{key: value for key, value in row.items() if key != "cost"} for row in document["rows"]]
    return rows, document["comparisons"], document["split"], document["dataset"]


def test_two_kills(start, finished, tmp_path):
    disturbed(start, tmp_path / "run", 2)
    assert figures(tmp_path / "run") == figures(finished)


@pytest.mark.slow
def test_many_kills(start, finished, tmp_path):
    assert disturbed(start, tmp_path / "run", 15) > 0
    assert figures(tmp_path / "run") == figures(finished)

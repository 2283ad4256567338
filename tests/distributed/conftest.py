"""Real processes: ``launch`` starts ranks as torchrun would, without its agent, and bounds them in time."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp

from recsparse.interactions import Interactions, split, write_split

WORKER = Path(__file__).with_name("worker.py")
ROOT = WORKER.parents[2]

if find_spec("torchrec") is None:
    collect_ignore_glob = ["test_*.py"]  # the extra `torchrec` is for Linux


@dataclass
class Ranks:
    """Processes that have ended: their exit codes and what they said."""

    codes: list[int]
    said: list[str]

    def check(self) -> None:
        assert self.codes == [0] * len(self.codes), "\n".join(text[-3000:] for text in self.said)


Launch = Callable[..., Ranks]


def start(n: int, command: list[str], started: int | None = None) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, *command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(n if started is None else started)
    ]  # fmt: skip


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


@pytest.fixture(scope="session")
def launch() -> Launch:
    """Run a case of worker.py (``launch(2, "train", config)``) or any module's ranks, and wait for them."""

    def run(n: int, case: str, *arguments: Any, timeout: float = 500, started: int | None = None) -> Ranks:
        processes = start(n, [str(WORKER), case, json.dumps(arguments, default=str)], started)
        try:
            said = [process.communicate(timeout=timeout)[0] for process in processes]
        finally:
            for process in processes:
                end(process)
        return Ranks([process.returncode for process in processes], said)

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split of 260 users who like one of six kinds of 120 items; validation users are trained on."""
    return write_split(split(of_kinds(), "random", seed=1), tmp_path_factory.mktemp("data") / "split")


def of_kinds() -> Interactions:
    """260 users who like one of six kinds of 120 items, and features that tell the kinds."""
    rng = np.random.default_rng(0)
    likes, kind = rng.integers(0, 6, 300), np.arange(120) % 6
    chance = 0.6 * np.arange(1, 121) ** -0.6 * np.where(likes[:, None] == kind, 2, 0.4)
    matrix = sp.csr_array((rng.random((300, 120)) < chance).astype(np.float32))
    kept = np.diff(matrix.indptr) > 3
    data = Interactions.from_csr(matrix[kept])
    tags = [[f"kind {each}", f"size {number % 7}"] for number, each in enumerate(kind)]
    return Interactions(
        data.matrix,
        data.users.append_column("likes", pa.array([f"kind {each}" for each in likes[kept]])),
        data.items.append_column("tags", pa.array(tags)).append_column("year", pa.array(1990 + np.arange(120) % 20)),
    )


@pytest.fixture
def settings(data: Path, tmp_path: Path) -> dict[str, Any]:
    return {"data": str(data), "output": str(tmp_path / "run"), "dim": 16, "epochs": 2, "batch_size": 256,
            "streams": 12, "timeout": 60}  # fmt: skip

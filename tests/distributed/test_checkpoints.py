"""Checkpoints fit any number of ranks, bit for bit, and outlive kill -9."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsparse.tables import load_table

MIXED: dict[str, Any] = {
    "optimiser": "adagrad", "checkpoint_every": 5, "keep": 10, "prune_every": 2,
    "users": {"sharding": "column-wise", "budget": {"rows": 70, "every": 3, "utility": "gradient"}},
    "item_features": {},
    "items": {"recipe": {"density": 0.3, "schedule": {"kind": "gradual", "start": 0.0, "end": 0.9}}},
}  # fmt: skip


def assembled(folder: Path, world: int) -> dict[str, np.ndarray]:
    """Whole tables from what the ranks wrote; of what every rank has, one copy that all agree on."""
    whole: dict[str, Any] = {}
    pieces: dict[str, list[tuple[int, int, np.ndarray]]] = {}
    for rank in range(world):
        with np.load(folder / f"rank-{rank}-of-{world}.npz") as found:
            for key in found.files:
                parts = key.split("/")
                if len(parts) < 4:
                    np.testing.assert_array_equal(whole.setdefault(key, found[key]), found[key])
                else:
                    pieces.setdefault(f"{parts[0]}/{parts[3]}", []).append((int(parts[2]), int(parts[1]), found[key]))
    for key, shards in pieces.items():
        by_column: dict[int, list[np.ndarray]] = {}
        for column, _, values in sorted(shards, key=lambda shard: shard[:2]):
            by_column.setdefault(column, []).append(values.reshape(len(values), -1))
        whole[key] = np.concatenate([np.concatenate(parts) for parts in by_column.values()], axis=1)
    return whole


def reshard(
    settings: dict[str, Any], launch: Any, tmp_path: Path, saved: tuple[int, ...], loaded: tuple[int, ...]
) -> None:
    losses = None
    for n in saved:
        config = settings | MIXED | {"output": str(tmp_path / f"saved-{n}")}
        launch(n, "train", config).check()
        last = pq.read_table(tmp_path / f"saved-{n}" / "losses.parquet")["loss"].to_numpy()
        losses = last if losses is None else losses
        np.testing.assert_allclose(last, losses, rtol=2e-6)
        whole: dict[int, dict[str, np.ndarray]] = {}
        for m in loaded:
            again = tmp_path / f"saved-{n}-loaded-{m}"
            source = tmp_path / f"saved-{n}" / "checkpoints" / "step-00000005"
            shutil.copytree(source, again / "checkpoints" / source.name)
            launch(m, "reshard", config | {"output": str(again)}, str(source), str(again)).check()
            whole[m] = assembled(again, m)
            assert whole[m]["position"].tolist() == [0, 5, 5]
            resumed = pq.read_table(again / "losses.parquet")["loss"].to_numpy()
            np.testing.assert_array_equal(resumed[:5], last[:5])
            np.testing.assert_allclose(resumed, last, rtol=2e-6)
        for m in loaded[1:]:
            assert whole[m].keys() == whole[loaded[0]].keys()
            for key, values in whole[loaded[0]].items():
                np.testing.assert_array_equal(values, whole[m][key], err_msg=f"{n} -> {m}: {key}")
        kinds = {key.partition("/")[2] for key in whole[loaded[0]]}
        assert kinds >= {"weights", "state", "mask", "remap", "utility", "lookup"}


def test_a_checkpoint_of_two_ranks_is_the_same_on_one_and_three(
    settings: dict[str, Any], launch: Any, tmp_path: Path
) -> None:
    reshard(settings, launch, tmp_path, (2,), (1, 3))
    output = tmp_path / "saved-2"
    manifest = json.loads((output / "checkpoints" / "step-00000005" / "checkpoint.json").read_text())
    assert manifest["ranks"] == 2
    assert len(manifest["files"]) == 2
    names = [path.name for path in (output / "checkpoints").iterdir()]
    assert all(name.startswith("step-") for name in names)  # nothing half written stays
    assert load_table(output / "user_table").shape == (260, 16)


@pytest.mark.slow
def test_checkpoints_of_one_to_four_ranks_are_the_same_on_one_to_four(
    settings: dict[str, Any], launch: Any, tmp_path: Path
) -> None:
    reshard(settings, launch, tmp_path, (1, 2, 3, 4), (1, 2, 3, 4))


def torchrun(settings: dict[str, Any], n: int, restarts: int) -> subprocess.Popen[str]:
    file = Path(settings["output"]).with_suffix(".json")
    file.write_text(json.dumps({name: value for name, value in settings.items() if name not in ("data", "output")}))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n),
               "--max-restarts", str(restarts), "--monitor-interval", "0.2", "-m", "recsparse", "train",
               settings["data"], "-o", settings["output"], "--settings", str(file)]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


def workers(agent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def wait_for(process: subprocess.Popen[str], condition: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return True
        time.sleep(0.05)
    return False


def killed(settings: dict[str, Any], kills: int, rng: random.Random) -> tuple[int, str]:
    """Train under torchrun and kill one of two ranks each time that a new checkpoint is there, at a random moment."""
    agent = torchrun(settings, 2, 2 * kills)
    checkpoints = Path(settings["output"]) / "checkpoints"
    done = 0
    try:
        while done < kills:
            seen = set(checkpoints.glob("step-*"))
            if not wait_for(agent, lambda: set(checkpoints.glob("step-*")) - seen, 120):  # noqa: B023
                break
            time.sleep(rng.uniform(0, 0.5))
            alive = workers(agent.pid)
            if not alive or (Path(settings["output"]) / "training.json").exists():
                break
            os.kill(rng.choice(alive), signal.SIGKILL)
            done += 1
            wait_for(agent, lambda: not set(alive) & set(workers(agent.pid)), 60)  # noqa: B023
        said = agent.communicate(timeout=500)[0]
    finally:
        agent.kill()
        agent.wait()
        if agent.stdout:
            agent.stdout.close()
    assert agent.returncode == 0, "\n".join(line for line in said.splitlines() if "rror" in line)[-6000:]
    return done, said


def outlives(settings: dict[str, Any], tmp_path: Path, launch: Any, kills: int) -> None:
    calm = settings | {"output": str(tmp_path / "calm")}
    launch(2, "train", calm).check()
    done, _ = killed(settings, kills, random.Random(0))
    assert done == kills
    summary, expected = (json.loads((Path(each["output"]) / "training.json").read_text()) for each in (settings, calm))
    assert summary["resumed_at"] > 0
    assert summary["validation"] == expected["validation"]
    losses, without = (
        pq.read_table(Path(each["output"]) / "losses.parquet")["loss"].to_numpy() for each in (settings, calm)
    )
    np.testing.assert_array_equal(losses, without)
    for table in ("user_table", "item_table"):
        ours, theirs = (load_table(Path(each["output"]) / table).to_dense() for each in (settings, calm))
        np.testing.assert_array_equal(ours, theirs)


def test_a_killed_rank_costs_nothing_but_steps(settings: dict[str, Any], launch: Any, tmp_path: Path) -> None:
    outlives(settings | MIXED | {"epochs": 30, "checkpoint_every": 20, "timeout": 120}, tmp_path, launch, 1)


def alive(pid: int) -> bool:
    """Whether it runs; a process that has ended and that nobody has asked for is not alive."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ranks_end_when_the_process_that_launched_them_is_killed(settings: dict[str, Any]) -> None:
    sets = [word for name in ("dim", "batch_size", "streams") for word in ("--set", f"{name}={settings[name]}")]
    command = [sys.executable, "-m", "recsparse", "train", settings["data"], "-o", settings["output"], "--ranks", "2",
               "--set", "epochs=100000", "--set", "checkpoint_every=1", *sets]  # fmt: skip
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    started: list[int] = []
    try:
        assert wait_for(launcher, lambda: any(Path(settings["output"]).glob("checkpoints/step-*")), 120)
        (agent,) = workers(launcher.pid)
        started = [agent, *workers(agent)]
        assert len(started) == 3
        assert all(alive(pid) for pid in started)
    finally:
        launcher.kill()
        launcher.wait()
    until = time.monotonic() + 20
    while any(alive(pid) for pid in started) and time.monotonic() < until:
        time.sleep(0.05)
    left = [pid for pid in started if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.mark.slow
def test_ten_killed_ranks_cost_nothing_but_steps(settings: dict[str, Any], launch: Any, tmp_path: Path) -> None:
    outlives(settings | MIXED | {"epochs": 120, "checkpoint_every": 10, "timeout": 120}, tmp_path, launch, 10)

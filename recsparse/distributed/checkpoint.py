"""Checkpoints of sharded tables by torch.distributed.checkpoint, in safetensors, that fit any number of ranks.

``step-N/`` holds one safetensors file a rank, written by its own thread while training goes on, and
``checkpoint.json``, written last: what the files are, of which model, at which position. The directory gets its name
when all of it is on disk, so what has the name is whole.
"""

import json
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor import Shard as Sharded

from recsparse.distributed.process import agreed
from recsparse.distributed.sharded import Shard, ShardedTables
from recsparse.errors import FormatError
from recsparse.files import atomic_directory

FORMAT = "recsparse-checkpoint"
FORMAT_VERSION = 1
_MANIFEST = "checkpoint.json"

State = dict[str, Tensor]


@dataclass(frozen=True)
class Position:
    """How far training has come: the next step is ``step`` of ``epoch``; ``done`` steps were taken in all."""

    epoch: int
    step: int
    done: int


def row_mesh() -> DeviceMesh:
    """All ranks in a row."""
    return init_device_mesh("cpu", (dist.get_world_size(),))


def shard_state(
    tables: ShardedTables, names: Iterable[str], mesh: DeviceMesh, part: str, take: Callable[[Shard], Tensor]
) -> State:
    """One kind of tensor of all shards, keyed by table, kind and first column, as torch's checkpoints know them.

    ``take`` gives a tensor whose rows are the shard's, in memory shared with it. Column-wise shards have keys of their
    own, so a row is never cut where another number of ranks would cut it otherwise.
    """
    state: State = {}
    for table in names:
        places, rows = tables.places[table], tables.specs[table].rows
        for column in sorted({place.column for place in places}):
            key = f"{table}.{part}.{column}"
            own = [take(shard) for shard in tables.shards[table] if shard.place.column == column]
            if tables.sharding[table] == "row-wise" and tables.world > 1:
                state[key] = _by_rows(own[0] if own else None, rows, places[0].columns, part, mesh)
            elif own:
                state[key] = own[0]
    return state


def _by_rows(local: Tensor | None, rows: int, columns: int, part: str, mesh: DeviceMesh) -> Tensor:
    if local is None:  # more ranks than rows: this one has none
        width = {"weights": (columns,), "pull": (columns,), "mask": (-(-columns // 8),), "state": ()}[part]
        local = torch.zeros((0, *width), dtype=torch.uint8 if part == "mask" else torch.float32)
    shape = torch.Size((rows, *local.shape[1:]))
    stride = (local.shape[1], 1) if local.ndim == 2 else (1,)
    return DTensor.from_local(local, mesh, [Sharded(0)], run_check=False, shape=shape, stride=stride)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: where they are; made by rank 0.
        identity: of the model; another one is not read.
        keep: how many are kept.
    """

    def __init__(self, directory: Path, identity: str, keep: int) -> None:
        self.directory, self._identity, self._keep = directory, identity, keep
        self._group = dist.new_group(backend="gloo")  # its own, as it talks while training talks
        self._pending: Future[Any] | None = None
        self._finished = threading.Event()
        self._error: BaseException | None = None
        if dist.get_rank() == 0:
            directory.mkdir(parents=True, exist_ok=True)
            for left in directory.glob(".step-*"):
                shutil.rmtree(left, ignore_errors=True)
        dist.barrier()

    def save(self, state: State, position: Position, about: dict[str, Any]) -> None:
        """Copy the state and write it while training goes on; waits for the one before."""
        self.wait()
        partial = self.directory / f".step-{position.done:08d}.partial"
        copy = {key: tensor.detach().clone() for key, tensor in state.items()}
        writer = HuggingFaceStorageWriter(str(partial), save_distributed=True)
        manifest = {"format": FORMAT, "format_version": FORMAT_VERSION, "identity": self._identity,
                    "ranks": dist.get_world_size(), "position": asdict(position), **about}  # fmt: skip
        self._finished.clear()
        response = async_save(copy, storage_writer=writer, process_group=self._group)
        self._pending = response if isinstance(response, Future) else response.upload_completion
        self._pending.add_done_callback(lambda future: self._finish(future, partial, manifest))

    def _finish(self, future: Future[Any], partial: Path, manifest: dict[str, Any]) -> None:
        """Give the directory its name, on rank 0, once all ranks have written."""
        try:
            future.result()
            if dist.get_rank() == 0:
                name = partial.name[1:].removesuffix(".partial")
                with atomic_directory(self.directory / name, overwrite=True) as whole:
                    for file in list(partial.iterdir()):
                        file.rename(whole / file.name)
                    manifest["files"] = {file.name: file.stat().st_size for file in sorted(whole.iterdir())}
                    (whole / _MANIFEST).write_text(json.dumps(manifest, indent=1))
                partial.rmdir()
                for early in self.names()[: -self._keep]:
                    shutil.rmtree(self.directory / early, ignore_errors=True)
        except BaseException as error:  # raised again by wait, in the thread that trains
            self._error = error
        finally:
            self._finished.set()

    def wait(self) -> None:
        """Wait until the last checkpoint is whole.

        Raises:
            OSError, RuntimeError: it could not be written; the one before is intact.
        """
        if self._pending is not None:
            self._finished.wait()
            self._pending = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def names(self) -> list[str]:
        """Whole checkpoints, oldest first."""
        return sorted(path.name for path in self.directory.glob("step-*") if (path / _MANIFEST).exists())

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        names = self.names()
        return self.directory / names[-1] if names else None

    def read_manifest(self, path: Path) -> dict[str, Any]:
        """Check a checkpoint before anything is read from it; every rank calls it together.

        Raises:
            DataError: on every rank: a file is missing or cut short, or it is of another model or format version.
        """
        with agreed():
            return read_manifest(path, self._identity)

    def load(self, path: Path, state: State) -> None:
        """Fill the state's tensors in place, each rank its own part."""
        with agreed():
            try:
                load(state, storage_reader=HuggingFaceStorageReader(str(path)), process_group=self._group)
            except CheckpointException as error:
                raise FormatError(
                    f"{path} cannot be read: {_reason(error)}; go back to an older checkpoint."
                ) from error


def read_manifest(path: Path, identity: str) -> dict[str, Any]:
    """Read and check ``checkpoint.json``.

    Raises:
        FormatError: a file is missing or cut short, or it is of another model or format version.
    """
    try:
        manifest: dict[str, Any] = json.loads((path / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} is not a whole checkpoint ({error}).") from error
    if manifest.get("format_version") != FORMAT_VERSION:
        raise FormatError(f"{path} has format version {manifest.get('format_version')}; this release reads 1.")
    if manifest["identity"] != identity:
        raise FormatError(
            f"{path} is a checkpoint of another model (its settings or catalogue differ); choose another output "
            "directory, or go back to its settings."
        )
    for name, size in manifest["files"].items():
        file = path / name
        if not file.exists() or file.stat().st_size != size:
            raise FormatError(
                f"{path} lacks its shard {name}, or the shard was cut short; copy it again or remove {path} to go on "
                "from the checkpoint before."
            )
    return manifest


def _reason(error: CheckpointException) -> str:
    return "; ".join(f"rank {rank}: {wrapped[0]}" for rank, wrapped in error.failures.items())

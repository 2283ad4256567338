"""The ranks of one training: how they meet, agree, and stop together."""

import ctypes
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore

from recsparse.errors import DataError, RecsparseError

Group = dist.ProcessGroup | None


@contextmanager
def joined(timeout: float, threads: int = 1) -> Iterator[tuple[int, int]]:
    """Join the other ranks that torchrun started, or be the only one; give this rank and their number.

    Raises:
        DataError: another rank did not come within ``timeout`` seconds.
    """
    torch.set_num_threads(threads)
    if "RANK" in os.environ:
        end_with_parent(signal.SIGKILL)  # the agent of torchrun; without it nobody would end or restart this rank
    device = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    patience = timedelta(seconds=timeout)
    try:
        store: Store = _meeting_point(rank, size, patience) if "RANK" in os.environ else HashStore()
        dist.init_process_group(device, store=store, rank=rank, world_size=size, timeout=patience)
    except (dist.DistError, RuntimeError) as error:
        raise DataError(
            f"Rank {rank} waited {timeout:g} seconds for {size} ranks to meet and one did not come or died "
            f"({str(error).splitlines()[0][:200]}); look at the other ranks' output and start again."
        ) from error
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


def end_with_parent(by: signal.Signals) -> None:
    """Have the kernel send this process a signal when the one that started it is gone, killed or not; Linux only."""
    PR_SET_PDEATHSIG = 1
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, by)


def _meeting_point(rank: int, size: int, patience: timedelta) -> Store:
    """The store where ranks leave their addresses.

    torchrun keeps its store over restarts, and with torch 2.13 the ranks of the next attempt would find the addresses
    of the dead there; so each attempt has keys of its own.
    """
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, size, is_master=rank == 0 and not hosted, timeout=patience)
    return PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


@contextmanager
def lost_rank_named() -> Iterator[None]:
    """Say in one sentence that another rank is gone, where torch says it in many."""
    try:
        yield
    except RecsparseError:
        raise
    except RuntimeError as error:
        if not any(sign in str(error) for sign in ("Connection closed", "Connection reset", "Timed out", "gloo")):
            raise
        raise DataError(
            f"Rank {os.environ.get('RANK', '0')} lost another rank, which died or hung "
            f"({str(error).splitlines()[0][:160]}); torchrun --max-restarts resumes from the last checkpoint."
        ) from error


def device() -> torch.device:
    """Where this rank's tables live: its GPU if there is one."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def gather(value: Any, group: Group = None) -> list[Any]:
    """Every rank's JSON value, by rank."""
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, torch.tensor([len(data)]), group=group)
    length = max(int(size) for size in sizes)
    padded = torch.zeros(length, dtype=torch.uint8)
    padded[: len(data)] = data
    pieces = [torch.zeros(length, dtype=torch.uint8) for _ in sizes]
    dist.all_gather(pieces, padded, group=group)
    return [json.loads(bytes(piece[: int(size)].tolist()).decode()) for piece, size in zip(pieces, sizes, strict=True)]


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum over ranks, in place."""
    dist.all_reduce(values)
    return values


@contextmanager
def agreed() -> Iterator[None]:
    """Let all ranks fail with one message when any of them fails inside; nobody waits for a rank that gave up.

    Raises:
        DataError: on every rank, naming the first rank that failed.
    """
    error: Exception | None = None
    try:
        yield
    except (RecsparseError, OSError) as caught:
        error = caught
    messages = gather(None if error is None else str(error))
    failed = [rank for rank, message in enumerate(messages) if message is not None]
    if failed:
        also = f" ({len(failed) - 1} more ranks failed.)" if len(failed) > 1 else ""
        raise DataError(f"rank {failed[0]}: {messages[failed[0]]}{also}") from error


def check_equal(what: str, value: str) -> None:
    """Refuse ranks that disagree.

    Raises:
        DataError: it names the ranks and what they have.
    """
    values = gather(value)
    others = [rank for rank, each in enumerate(values) if each != values[0]]
    if others:
        raise DataError(
            f"rank {others[0]} has another {what} than rank 0 ({values[others[0]][:12]} and {values[0][:12]}); "
            "start every rank with the same files."
        )

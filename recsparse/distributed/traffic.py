"""What ranks send to each other: as little as sparse vectors allow, and counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class Traffic:
    """The all-to-alls of torchrec, counted where it calls them.

    Counted is everything but the part for oneself. The all-reduce of tables that are copies runs inside DDP and is
    counted by arithmetic (:func:`copy_bytes`).

    Attributes:
        sent: bytes this rank has sent to others.
        packing: send vectors and gradients as a bitmap and the entries that are not zero, wherever that is less; every
            rank must say the same. Costs one more all-to-all of 8 bytes a rank, for the sizes.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.packing = False

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count, and pack, what is sent inside."""
        original = dist.all_to_all_single

        def all_to_all_single(
            output: Tensor, input: Tensor, output_split_sizes: Any = None, input_split_sizes: Any = None,  # noqa: A002
            *args: Any, **kwargs: Any,
        ) -> Any:  # fmt: skip
            vectors = input.dtype == torch.float32 and input.ndim == 1 and input_split_sizes is not None
            if self.packing and vectors and input.device.type == "cpu":
                return self._exchange(output, input, list(output_split_sizes), list(input_split_sizes), original)
            n, rank = dist.get_world_size(), dist.get_rank()
            own = len(input) // n if not input_split_sizes else int(input_split_sizes[rank])
            row = input[0].nbytes if len(input) else 0
            self.sent += (len(input) - own) * row
            return original(output, input, output_split_sizes, input_split_sizes, *args, **kwargs)

        dist.all_to_all_single = all_to_all_single
        try:
            yield
        finally:
            dist.all_to_all_single = original

    def _exchange(self, output: Tensor, input: Tensor, come: list[int], go: list[int], original: Any) -> "_Done":  # noqa: A002
        rank = dist.get_rank()
        parts = list(torch.split(input, go))
        packed = [pack(part.numpy()) if to != rank else np.zeros(0, np.uint8) for to, part in enumerate(parts)]
        sizes = torch.tensor([len(each) for each in packed])
        coming = torch.empty_like(sizes)
        original(coming, sizes)
        data = torch.empty(int(coming.sum()), dtype=torch.uint8)
        original(data, torch.from_numpy(np.concatenate(packed)), coming.tolist(), sizes.tolist())
        self.sent += int(sizes.sum()) + 8 * (len(sizes) - 1)
        pieces = torch.split(data, coming.tolist())
        for number, (piece, whole) in enumerate(zip(pieces, torch.split(output, come), strict=True)):
            whole.copy_(parts[rank] if number == rank else torch.from_numpy(unpack(piece.numpy(), len(whole))))
        return _Done()


class _Done:
    """An exchange that has ended already."""

    def wait(self) -> bool:
        """Return at once."""
        return True


def pack(values: Floats) -> Bytes:
    """A bitmap of the entries that are not zero, and these; or all of them where that is not more.

    Example:
        >>> values = np.array([0, 0, 1.5, 0, 0, 0, 0, 2], dtype=np.float32)
        >>> len(pack(values)), unpack(pack(values), 8).tolist()
        (9, [0.0, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0, 2.0])
    """
    there = values != 0
    size = -(-len(values) // 8) + 4 * int(np.count_nonzero(there))
    if size >= values.nbytes:
        return values.view(np.uint8)
    return np.concatenate([np.packbits(there), values[there].view(np.uint8)])


def unpack(data: Bytes, n: int) -> Floats:
    """The ``n`` values that :func:`pack` was given."""
    if len(data) == 4 * n:
        return np.frombuffer(data.tobytes(), dtype=np.float32)
    values = np.zeros(n, dtype=np.float32)
    bitmap = -(-n // 8)
    values[np.unpackbits(data[:bitmap], count=n).view(np.bool_)] = np.frombuffer(data[bitmap:].tobytes(), np.float32)
    return values


def copy_bytes(rows: int, dim: int, world: int) -> int:
    """Bytes a rank sends to add up one gradient of a table that is a copy: a ring all-reduce of float32."""
    return 2 * (world - 1) * rows * dim * 4 // world

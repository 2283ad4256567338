"""How much ranks send to each other and how evenly they are asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor


class Traffic:
    """Bytes this rank has sent to others through torchrec's collectives, by kind.

    Counted where torchrec calls them: of an all-to-all everything but the part for oneself. The all-reduce of tables
    that are copies runs inside DDP and is counted by arithmetic (:meth:`copy_bytes`).
    """

    def __init__(self) -> None:
        self.sent = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count what is sent inside."""
        original = dist.all_to_all_single

        def all_to_all_single(
            output: Tensor, input: Tensor, output_split_sizes: Any = None, input_split_sizes: Any = None,  # noqa: A002
            *args: Any, **kwargs: Any,
        ) -> Any:  # fmt: skip
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


def copy_bytes(rows: int, dim: int, world: int) -> int:
    """Bytes a rank sends to add up one gradient of a table that is a copy: a ring all-reduce of float32."""
    return 2 * (world - 1) * rows * dim * 4 // world

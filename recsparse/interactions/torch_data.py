"""A dataset directory as a torch dataset: streamed, shuffled with a seed, sharded by rank and by worker."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from recsparse.errors import ConfigError
from recsparse.interactions.reading import read_group, row_groups
from recsparse.interactions.store import read_info

Batch = dict[str, torch.Tensor]


class UserBatches(IterableDataset[Batch]):
    """Batches of users with all their interactions, read row group by row group.

    Every rank (and every worker of a rank's ``DataLoader``) gets its own range of users, equal to within one user, and
    reads only the row groups that its range touches; together they give each user once an epoch. With ``shuffle``, row
    groups come in random order and users in random order within each: the same for the same seed and epoch.

    A batch has ``users`` (B,) int64 rows, ``offsets`` (B + 1,) int64, ``items`` int64, ``values`` float32 and, where
    the dataset has them, ``times`` int64. Pass ``batch_size=None`` to the ``DataLoader``.

    Args:
        directory: the dataset.
        batch_users: users a batch; the last one of a row group may have fewer.
        shuffle: whether the order is random.
        seed: of that order.
        rank: this process, from 0.
        world_size: how many processes share the data.

    Raises:
        ConfigError: ``rank`` is not one of ``world_size``, or ``batch_users`` is not positive.

    Example:
        >>> import tempfile
        >>> from recsparse.interactions import Interactions, write
        >>> data = write(Interactions.from_csr(np.eye(5)), Path(tempfile.mkdtemp()) / "data")
        >>> [batch["users"].tolist() for batch in UserBatches(data, batch_users=2, rank=1, world_size=2)]
        [[2, 3], [4]]
    """

    def __init__(
        self, directory: Path, *, batch_users: int = 256, shuffle: bool = False, seed: int = 0, rank: int = 0,
        world_size: int = 1,
    ) -> None:  # fmt: skip
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank is {rank} of {world_size}; it must be at least 0 and below the number of ranks.")
        if batch_users < 1:
            raise ConfigError(f"batch_users is {batch_users}; it must be at least 1.")
        self.groups = row_groups(directory)
        self.n_users = int(read_info(directory)["counts"]["users"])
        self.batch_users, self.shuffle, self.seed = batch_users, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose another order for the next pass, the same on every rank."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        shard, shards = self.rank, self.world_size
        if worker is not None:
            shard, shards = shard * worker.num_workers + worker.id, shards * worker.num_workers
        start, stop = (self.n_users * each // shards for each in (shard, shard + 1))
        mine = [group for group in self.groups if group.first < stop and group.first + group.users > start]
        rng = np.random.default_rng([self.seed, self.epoch, shard])
        if self.shuffle:
            rng.shuffle(mine)
        for group in mine:
            users = read_group(group).between(start, stop)
            order = rng.permutation(len(users)) if self.shuffle else np.arange(len(users))
            for begin in range(0, len(order), self.batch_users):
                rows = order[begin : begin + self.batch_users]
                counts = users.indptr[rows + 1] - users.indptr[rows]
                offsets = np.concatenate([[0], np.cumsum(counts)])
                places = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - users.indptr[rows], counts)
                batch = {
                    "users": torch.from_numpy(users.first + rows),
                    "offsets": torch.from_numpy(offsets),
                    "items": torch.from_numpy(users.items[places].astype(np.int64)),
                    "values": torch.from_numpy(users.values[places]),
                }
                if users.times is not None:
                    batch["times"] = torch.from_numpy(users.times[places])
                yield batch

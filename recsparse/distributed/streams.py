"""Batches of a dataset directory that do not depend on how many ranks share it.

Users are cut into ``n`` *streams* of equally many interactions, in row order. Step t of T takes from each stream the
share [L t / T, L (t + 1) / T) of its L interactions in a random order that follows from the seed and the epoch alone.
A rank has a contiguous range of streams and reads the row groups they lie in, so the global batch of a step is the same
at any number of ranks, an epoch sees every interaction once, and any step can be taken without those before it.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from recsparse.distributed.process import agreed, total
from recsparse.errors import ConfigError, DataError
from recsparse.interactions.draws import draw
from recsparse.interactions.reading import RowGroup, Users, read_group, row_groups
from recsparse.interactions.store import read_info
from recsparse.kernels.samples import draw_samples

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Contents:
    """What a pass over the data found, the same on every rank.

    Attributes:
        users: interactions of each user, (U,).
        items: interactions of each item, (I,).
    """

    users: Counts
    items: Counts

    @property
    def interactions(self) -> int:
        """How many interactions there are."""
        return int(self.users.sum())


def scan(directory: Path, rank: int, world: int) -> Contents:
    """Read every row group once, each on one rank, check it, and count.

    Raises:
        DataError: on every rank, naming the rank, feature and value, if an item id is out of range, ids do not ascend
            within a user, a value is negative, or a row group's users are not those that follow the one before.
    """
    with agreed():
        counts = read_info(directory)["counts"]
        shape = int(counts["users"]), int(counts["items"])
        groups = row_groups(directory)
    users, items = (torch.zeros(n, dtype=torch.int64) for n in shape)
    with agreed():
        for group in groups[rank::world]:
            piece = read_group(group)
            _check(group, piece, shape)
            users[piece.first : piece.first + len(piece)] = torch.from_numpy(np.diff(piece.indptr))
            items += torch.from_numpy(np.bincount(piece.items, minlength=shape[1]))
    contents = Contents(total(users).numpy(), total(items).numpy())
    with agreed():
        if contents.interactions != counts["interactions"] or not contents.interactions:
            raise DataError(
                f"{directory} holds {contents.interactions} interactions and says {counts['interactions']}; build it "
                "again."
            )
    return contents


def _check(group: RowGroup, piece: Users, shape: tuple[int, int]) -> None:
    where = f"{group.file}, row group {group.number}"
    if piece.first + len(piece) > shape[0]:
        raise DataError(f"{where}: user {piece.first + len(piece) - 1} is out of range, there are {shape[0]} users.")
    bad = np.flatnonzero((piece.items < 0) | (piece.items >= shape[1]))
    if len(bad):
        raise DataError(f"{where}: item {piece.items[bad[0]]} is out of range, there are {shape[1]} items.")
    steps = np.diff(piece.items) <= 0
    inner = piece.indptr[1:-1]
    steps[inner[(inner > 0) & (inner < len(piece.items))] - 1] = False  # from one user to the next
    if steps.any():
        entry = int(np.flatnonzero(steps)[0])
        user = piece.first + int(np.searchsorted(piece.indptr, entry, side="right")) - 1
        raise DataError(f"{where}: the items of user {user} do not ascend at item {piece.items[entry + 1]}.")
    if (piece.values < 0).any():
        entry = int(np.argmax(piece.values < 0))
        raise DataError(
            f"{where}: the value {piece.values[entry]} of item {piece.items[entry]} is negative, and training takes "
            "every interaction as liked; drop such interactions."
        )


@dataclass(frozen=True)
class Piece:
    """The part of a row group that belongs to one stream."""

    group: RowGroup
    start: int
    stop: int
    first_entry: int
    entries: int


@dataclass(frozen=True)
class _Opened:
    """A piece in memory, in an epoch's order."""

    users: Users
    user_of: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Samples of one rank: users (B,) and items (B, 1 + n_negatives), the known one first; int64 rows."""

    users: Counts
    items: Counts


class Streams:
    """This rank's part of every batch.

    Args:
        directory: a dataset.
        contents: what :func:`scan` found there.
        streams: into how many parts the users are cut.
        batch_size: known pairs a step, over all streams.
        n_negatives: drawn items a pair.
        seed: of orders and draws.
        drawable: rows of the items that may be negatives; all by default.
        rank: this process.
        world: how many there are.

    Raises:
        ConfigError: there are more ranks than streams.
    """

    def __init__(
        self, directory: Path, contents: Contents, *, streams: int, batch_size: int, n_negatives: int, seed: int,
        drawable: Counts | None = None, rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        if world > streams:
            raise ConfigError(f"There are {world} ranks for {streams} streams; set streams to a multiple of {world}.")
        self.n_negatives, self.seed = n_negatives, seed
        self.steps = -(-contents.interactions // batch_size)
        self._n_items = len(contents.items)
        self._drawable = np.zeros(0, dtype=np.int64) if drawable is None else drawable
        entries = np.concatenate([[0], np.cumsum(contents.users)])
        targets = contents.interactions * np.arange(streams + 1) // streams
        cuts = np.searchsorted(entries, targets, side="left")
        cuts[-1] = len(contents.users)
        mine = range(rank * streams // world, (rank + 1) * streams // world)
        groups = row_groups(directory)
        self._pieces = {stream: _pieces(groups, int(cuts[stream]), int(cuts[stream + 1]), entries) for stream in mine}
        self._opened: OrderedDict[tuple[int, int, int], _Opened] = OrderedDict()
        self._read = lru_cache(maxsize=len(mine) + 1)(read_group)
        self._order = lru_cache(maxsize=2 * len(mine))(self._draw_order)
        self._draws = lru_cache(maxsize=2)(lambda epoch: draw(self.seed, "negatives", np.int64(epoch))[()])

    def batch(self, epoch: int, step: int) -> Batch:
        """This rank's samples of a step; of any step, in any order, the same each time."""
        parts = [part for stream in self._pieces for part in self._part(stream, epoch, step)]
        users = np.concatenate([np.zeros(0, np.int64), *(part.users for part in parts)])
        items = np.concatenate([np.zeros((0, self.n_negatives + 1), np.int64), *(part.items for part in parts)])
        return Batch(users, items)

    def _part(self, stream: int, epoch: int, step: int) -> list[Batch]:
        pieces = self._pieces[stream]
        shuffled, ends = self._order(epoch, stream)
        length = ends[-1] if ends else 0
        start, stop = length * step // self.steps, length * (step + 1) // self.steps
        parts = []
        for number, end in zip(shuffled, ends, strict=True):
            begin = end - pieces[number].entries
            low, high = max(start, begin), min(stop, end)
            if low < high:
                parts.append(self._samples(stream, number, epoch, low - begin, high - begin))
        return parts

    def _draw_order(self, epoch: int, stream: int) -> tuple[list[int], list[int]]:
        """The pieces of a stream in an epoch's order, and where each ends."""
        pieces = self._pieces[stream]
        shuffled = np.random.default_rng([self.seed, epoch, stream]).permutation(len(pieces)).tolist()
        return shuffled, np.cumsum([pieces[number].entries for number in shuffled]).tolist()

    def _samples(self, stream: int, number: int, epoch: int, low: int, high: int) -> Batch:
        piece, opened = self._pieces[stream][number], self._open(stream, number, epoch)
        users = np.empty(high - low, dtype=np.int64)
        items = np.empty((high - low, self.n_negatives + 1), dtype=np.int64)
        n = draw_samples(
            opened.order, low, high, opened.users.first, opened.user_of, opened.users.indptr, opened.users.items,
            self._n_items, self._drawable, self.n_negatives, self._draws(epoch), piece.first_entry, users, items,
        )  # fmt: skip
        return Batch(users[:n], items[:n])

    def _open(self, stream: int, number: int, epoch: int) -> _Opened:
        key = (epoch, stream, number)
        if key not in self._opened:
            piece = self._pieces[stream][number]
            users = self._read(piece.group).between(piece.start, piece.stop)
            rng = np.random.default_rng([self.seed, epoch, piece.group.first, piece.start])
            self._opened[key] = _Opened(
                users,
                np.repeat(np.arange(len(users)), np.diff(users.indptr)),
                rng.permutation(piece.entries),
            )
            while len(self._opened) > 2 * len(self._pieces):
                self._opened.popitem(last=False)
        return self._opened[key]


def _pieces(groups: list[RowGroup], start: int, stop: int, entries: Counts) -> list[Piece]:
    """The users ``start`` to ``stop`` - 1, a piece a row group, without pieces that have no interaction."""
    pieces = []
    for group in groups:
        low, high = max(start, group.first), min(stop, group.first + group.users)
        if low < high and entries[high] > entries[low]:
            pieces.append(Piece(group, low, high, int(entries[low]), int(entries[high] - entries[low])))
    return pieces

"""The tables of MF in training, and one epoch of stochastic gradient steps over them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.kernels import sgd as kernels
from recsparse.kernels.negatives import Known, known_items, mix
from recsparse.models.checkpoint import Arrays
from recsparse.parallel import for_ranges

Floats = npt.NDArray[np.float32]

LOSSES = {"bpr": kernels.BPR, "softmax": kernels.SOFTMAX, "squared": kernels.SQUARED}
OPTIMISERS = {"sgd": kernels.SGD, "adagrad": kernels.ADAGRAD, "adam": kernels.ADAM}
NEGATIVES = ("uniform", "popularity", "in-batch")


@dataclass
class Sampler:
    """The order of an epoch's samples, decided by the seed and the epoch's number alone.

    Attributes:
        known: the training pairs.
        negatives: where negatives come from.
        seed: of everything.
        drawable: int32, the items that uniform negatives are drawn from.
    """

    known: Known
    negatives: str
    seed: int
    drawable: npt.NDArray[np.int32]

    @classmethod
    def of(
        cls, matrix: sp.csr_array, negatives: str, seed: int, drawable: npt.NDArray[np.int32] | None = None
    ) -> "Sampler":
        """Sample the pairs of X (U, I); uniform negatives come from all items by default."""
        known = known_items(matrix.indptr, matrix.indices, matrix.shape[1])
        return cls(known, negatives, seed, np.arange(known.n_items, dtype=np.int32) if drawable is None else drawable)

    def epoch(self, number: int) -> kernels.Epoch:
        """Lay out epoch ``number``: each user's items shuffled and cut into groups, the groups shuffled."""
        rng = np.random.default_rng([self.seed, number])
        seed = np.uint64(rng.integers(0, 2**63))
        ptr = self.known.ptr
        items = self.known.items.copy()
        kernels.shuffle_within(ptr, items, seed)
        counts = -(-np.diff(ptr) // kernels.GROUP)
        users = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = ptr[users] + within * kernels.GROUP
        stops = np.minimum(starts + kernels.GROUP, ptr[users + 1])
        order = rng.permutation(len(users))
        laid = (np.empty_like(users), np.empty(len(users) + 1, dtype=np.int64), np.empty_like(items))
        kernels.arrange(order, users, starts, stops, items, *laid)
        return kernels.Epoch(*laid, self._pool(), self.negatives == "in-batch", np.uint64(mix(seed)))

    def log_share(self) -> Floats:
        """Log of the probability that a draw is this item, (I,); the correction of the sampled softmax."""
        if self.negatives == "uniform":
            return np.zeros(self.known.n_items, dtype=np.float32)
        counts = np.bincount(self.known.items, minlength=self.known.n_items)
        share: Floats = np.log(np.maximum(counts, 1) / counts.sum()).astype(np.float32)
        return share

    def _pool(self) -> npt.NDArray[np.int32]:
        return self.drawable if self.negatives == "uniform" else self.known.items


def new_side(rows: int, dim: int, optimiser: int, std: float, rng: np.random.Generator) -> kernels.Side:
    """A table with normal entries, its rows aligned to cache lines, and the optimiser's state."""
    values = _aligned(rows, dim)
    values[:] = std * rng.standard_normal((rows, dim), dtype=np.float32)
    adam, stateful = optimiser == kernels.ADAM, optimiser != kernels.SGD
    return kernels.Side(
        values,
        _aligned(rows if stateful else 0, dim),
        _aligned(rows if adam else 0, dim),
        np.zeros(rows if adam else 0, dtype=np.int64),
        np.zeros((0, dim), dtype=np.float32),
    )


def confine(side: kernels.Side, kept: npt.NDArray[np.bool_] | None) -> kernels.Side:
    """Keep weights and optimiser state only where ``kept``; everywhere for None."""
    if kept is None:
        return side._replace(mask=np.zeros((0, side.values.shape[1]), dtype=np.float32))
    mask = kept.astype(np.float32)
    for table in (side.values, side.first, side.second):
        if len(table):
            np.multiply(table, mask, out=table)
    return side._replace(mask=mask)


def run_epoch(
    sampler: Sampler, number: int, users: kernels.Side, items: kernels.Side, settings: kernels.Settings,
    n_jobs: int | None,
) -> int:  # fmt: skip
    """Take one epoch's steps, lock-free on ``n_jobs`` threads; give the number of samples trained on.

    With one thread the result is a function of the arguments, byte for byte. With several, threads may overwrite each
    other's steps on the same row (Niu et al., "Hogwild!", 2011); which ones differs from run to run.
    """
    epoch, log_share = sampler.epoch(number), sampler.log_share()
    taken: list[int] = []

    def work(start: int, stop: int) -> None:
        taken.append(kernels.train_groups(start, stop, epoch, sampler.known, users, items, settings, log_share))

    n = len(epoch.users)
    step = max(1, n // (16 * kernels.BATCH)) * kernels.BATCH
    for_ranges(work, n, step=step, n_jobs=n_jobs)
    return sum(taken)


def pack_side(name: str, side: kernels.Side) -> Arrays:
    """The side's arrays by name, for a checkpoint."""
    return {f"{name}.{field}": np.ascontiguousarray(array) for field, array in zip(side._fields, side, strict=True)}


def unpack_side(name: str, arrays: Arrays) -> kernels.Side:
    """What :func:`pack_side` gave, aligned again."""
    tables = [arrays[f"{name}.{field}"] for field in kernels.Side._fields]
    for at, table in enumerate(tables[:3]):
        tables[at] = _aligned(*table.shape)
        tables[at][:] = table
    return kernels.Side(*tables)


def _aligned(rows: int, dim: int) -> Floats:
    """Zeros whose first row starts on a cache line."""
    buffer = np.zeros(rows * dim + 16, dtype=np.float32)
    first = (-buffer.ctypes.data % 64) // 4
    return buffer[first : first + rows * dim].reshape(rows, dim)

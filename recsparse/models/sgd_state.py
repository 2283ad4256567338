"""One epoch of stochastic gradient steps over MF's tables."""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.kernels import sgd as kernels
from recsparse.kernels.negatives import Known, known_items, mix
from recsparse.kernels.sgd_epoch import train_groups
from recsparse.parallel import for_ranges, share

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

    def epoch(self, number: int, n_jobs: int | None = 1) -> kernels.Epoch:
        """Lay out epoch ``number``: each user's items shuffled and cut into groups, the groups shuffled."""
        rng = np.random.default_rng([self.seed, number])
        seed = np.uint64(rng.integers(0, 2**63))
        known, items = self.known.ptr, self.known.items.copy()
        share(partial(kernels.shuffle_within, ptr=known, items=items, seed=seed), len(known) - 1, n_jobs=n_jobs)
        users, starts, sizes = self._groups
        order = rng.permutation(len(users))
        ptr, positives = np.concatenate([[0], np.cumsum(sizes[order])]), np.empty_like(items)
        arrange = partial(kernels.arrange, order=order, start_of=starts, ptr=ptr, items=items, positives=positives)
        share(arrange, len(order), n_jobs=n_jobs)
        in_batch = self.negatives == "in-batch"
        return kernels.Epoch(users[order], ptr, positives, self._pool(), in_batch, np.uint64(mix(seed)))

    @cached_property
    def _groups(self) -> tuple[npt.NDArray[np.int64], ...]:
        """The user of each group, where it starts among the known items, and how many it has; in no random order."""
        ptr = self.known.ptr
        counts = -(-np.diff(ptr) // kernels.GROUP)
        users = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = ptr[users] + within * kernels.GROUP
        return users, starts, np.minimum(kernels.GROUP, ptr[users + 1] - starts)

    def log_share(self) -> Floats:
        """Log of the probability that a draw is this item, (I,); the correction of the sampled softmax."""
        if self.negatives == "uniform":
            return np.zeros(self.known.n_items, dtype=np.float32)
        counts = np.bincount(self.known.items, minlength=self.known.n_items)
        share: Floats = np.log(np.maximum(counts, 1) / counts.sum()).astype(np.float32)
        return share

    def _pool(self) -> npt.NDArray[np.int32]:
        return self.drawable if self.negatives == "uniform" else self.known.items


def run_epoch(
    sampler: Sampler, number: int, users: kernels.Side, items: kernels.Side, settings: kernels.Settings,
    n_jobs: int | None,
) -> int:  # fmt: skip
    """Take one epoch's steps, lock-free on ``n_jobs`` threads; give the number of samples trained on.

    With one thread the result is a function of the arguments, byte for byte. With several, threads may overwrite each
    other's steps on the same row (Niu et al., "Hogwild!", 2011); which ones differs from run to run.
    """
    epoch = sampler.epoch(number, n_jobs)
    log_share = sampler.log_share() if settings.loss == kernels.SOFTMAX else np.zeros(0, dtype=np.float32)
    taken: list[int] = []

    def work(start: int, stop: int) -> None:
        taken.append(train_groups(start, stop, epoch, sampler.known, users, items, settings, log_share))

    n = len(epoch.users)
    step = max(1, n // (16 * kernels.BATCH)) * kernels.BATCH
    for_ranges(work, n, step=step, n_jobs=n_jobs)
    return sum(taken)

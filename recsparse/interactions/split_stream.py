"""A split of a dataset directory that never has it whole in memory: the same bytes as the one in memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsparse.files import atomic_directory
from recsparse.interactions.download import Progress, silent
from recsparse.interactions.leakage import Leakage
from recsparse.interactions.protocols import TEST, TRAIN, VALIDATION, Block, Labels, Whole, history_of
from recsparse.interactions.reading import Users, stream
from recsparse.interactions.split import labeller, refuse_empty, write_about
from recsparse.interactions.store import DatasetWriter, read_info, read_table

BINS = 1 << 16


def split_directory(
    directory: Path, out: Path, protocol: str = "strong", *, seed: int = 0, overwrite: bool = False,
    progress: Progress | None = None, **options: Any,
) -> Path:  # fmt: skip
    """Split a dataset directory into a split directory, row group by row group.

    The files are, to the byte, those of ``write_split(split(read(directory), ...), out)``. Memory: arrays as long as
    the users and the items, and a part of each of the five datasets that are written.

    Args:
        directory: the dataset.
        out: the split; it appears whole or not at all.
        protocol: see :func:`recsparse.interactions.split`.
        seed: as there.
        overwrite: replace an existing split.
        progress: told ``split``, the interactions done and their number.
        **options: as there.

    Raises:
        ConfigError: the protocol or an option is unknown or impossible.
        DataError: the data cannot be split so.
        FormatError: a file is damaged.
    """
    directory, out, tell = Path(directory), Path(out), progress or silent
    info = read_info(directory)
    n_items, nnz = (info["counts"][each] for each in ("items", "interactions"))
    counts = np.concatenate([np.zeros(0, dtype=np.int64), *(np.diff(users.indptr) for users in stream(directory))])
    whole = Whole(counts, n_items, info["times"], lambda share: _time_at(directory, int(share * nnz)))
    label = labeller(protocol, whole, seed, options)
    about = {"protocol": protocol, "seed": seed, "options": options}
    tables = [read_table(directory / f"{name}.parquet") for name in ("users", "items")]
    with atomic_directory(out, overwrite=overwrite) as partial:
        parts = {
            "train": _Part(partial / "train", info["times"], TRAIN, (TRAIN,)),
            "validation/history": _Part(
                partial / "validation/history", info["times"], VALIDATION, history_of(VALIDATION)
            ),
            "validation/target": _Part(partial / "validation/target", info["times"], VALIDATION, (VALIDATION,)),
            "test/history": _Part(partial / "test/history", info["times"], TEST, history_of(TEST)),
            "test/target": _Part(partial / "test/target", info["times"], TEST, (TEST,)),
        }
        leakage, done = Leakage(n_items), 0
        for users in stream(directory):
            block = _block(users)
            labels = label(block)
            leakage.add(block, labels)
            for part in parts.values():
                part.add(users, block, labels)
            done += len(labels)
            tell("split", done, nnz)
        for name, part in parts.items():
            part.close(tables[0], tables[1], f"{out.name}/{name}")
        for name in ("train", "validation/target", "test/target"):
            refuse_empty(name.split("/")[0].replace("train", "training"), parts[name].written, about)
        later = None
        if info["times"]:
            later = dict.fromkeys(leakage.earliest, 0)
            for users in stream(partial / "train"):
                assert users.times is not None  # noqa: S101 (dataset.json says so)
                for name, earliest in leakage.earliest.items():
                    later[name] += int((users.times > earliest).sum())
        write_about(partial, about, leakage.report(later))
    return out


class _Part:
    """One of the datasets of a split: users with an interaction labelled ``needs``, their interactions in ``takes``."""

    def __init__(self, directory: Path, timed: bool, needs: int, takes: tuple[int, ...]) -> None:
        self.writer = DatasetWriter(directory, timed)
        self.needs, self.takes = needs, takes
        self.rows: list[npt.NDArray[np.int64]] = []
        self.written = 0

    def add(self, users: Users, block: Block, labels: Labels) -> None:
        local = block.users - users.first
        chosen = np.bincount(local[labels == self.needs], minlength=len(users)) > 0
        kept = np.isin(labels, self.takes) & chosen[local]
        lengths = np.bincount(local[kept], minlength=len(users))[chosen]
        indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.writer.add(
            indptr, users.items[kept], users.values[kept], None if users.times is None else users.times[kept]
        )
        self.rows.append(users.first + np.flatnonzero(chosen))
        self.written += int(kept.sum())

    def close(self, users: pa.Table, items: pa.Table, name: str) -> None:
        rows = np.concatenate([np.zeros(0, dtype=np.int64), *self.rows])
        self.writer.close(users.take(pa.array(rows)), items, name)


def _block(users: Users) -> Block:
    counts = np.diff(users.indptr)
    rows = np.repeat(np.arange(users.first, users.first + len(users), dtype=np.int64), counts)
    return Block(rows, users.items.astype(np.int64), users.times, np.repeat(users.indptr[:-1], counts))


def _time_at(directory: Path, place: int) -> int:
    """Give the time at a place of the sorted times, by histograms that narrow down: two or three passes."""
    low = min(int(times.min()) for times in _times(directory))
    high = max(int(times.max()) for times in _times(directory))
    below = 0
    while high > low:
        width = -(-(high - low + 1) // BINS)
        counts = np.zeros(BINS, dtype=np.int64)
        for times in _times(directory):
            inside = times[(times >= low) & (times <= high)]
            counts += np.bincount((inside - low) // width, minlength=BINS)
        bin_ = int(np.searchsorted(np.cumsum(counts), place - below, side="right"))
        below += int(counts[:bin_].sum())
        low, high = low + bin_ * width, min(high, low + (bin_ + 1) * width - 1)
    return low


def _times(directory: Path) -> Iterator[npt.NDArray[np.int64]]:
    for users in stream(directory):
        if users.times is not None and len(users.times):
            yield users.times

"""Score many users into a directory of Parquet: a part at a time, in bounded memory, resumable."""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from recsparse.errors import ConfigError
from recsparse.interactions.interactions import USER, Interactions
from recsparse.models.base import Recommender
from recsparse.scoring.filters import Filters
from recsparse.scoring.memory import Allowance, parse_bytes, resident_bytes
from recsparse.scoring.output import FORMAT_VERSION, Output, digest_files
from recsparse.scoring.scorer import Scorer
from recsparse.scoring.users import DatasetUsers, Ids, MemoryUsers, Users, read_ids


@dataclass(frozen=True)
class Job:
    """Whom to score and how, in plain values.

    Attributes:
        users: original ids, or a Parquet file with user_id (and features); None takes all.
        histories: dataset directory to represent users by (folded in); None takes what the model was trained on.
        k: items a user.
        filters: what is left out.
        popularity_by: a feature of users by which cold users get what is popular; None: popular with everybody.
        match_items: let ``histories`` have another catalogue; items are matched by id, unknown ones left out.
        part_users: users a part, the unit that a kill can cost.
        memory: the most this process may hold, ``"2GiB"``; None for no limit.
    """

    users: Ids | None = None
    histories: Path | None = None
    k: int = 20
    filters: Filters = field(default_factory=Filters)
    popularity_by: str | None = None
    match_items: bool = False
    part_users: int = 1 << 16
    memory: str | int | None = None

    def __post_init__(self) -> None:
        for name in ("k", "part_users"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1.")

    def describe(self) -> dict[str, Any]:
        """What decides the result, with the digests of its files; memory does not."""
        filters = self.filters
        return {
            "users": _digest(self.users),
            "histories": _digest(self.histories),
            "k": self.k,
            "exclude_seen": filters.exclude_seen,
            "seen": [_digest(Path(directory)) for directory in filters.seen],
            "allow": _digest(filters.allow),
            "deny": _digest(filters.deny),
            "denials": _digest(filters.denials),
            "where": filters.where,
            "per_category": None if filters.per_category is None else list(filters.per_category),
            "popularity_by": self.popularity_by,
            "match_items": self.match_items,
            "part_users": self.part_users,
        }


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    done: int
    total: int
    seconds: float
    scored: int
    """Users scored by this process, those of parts found finished not counted."""

    @property
    def users_per_second(self) -> float:
        """Users scored a second, reading and writing included."""
        return self.scored / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Estimate of the time to the end."""
        return (self.total - self.done) / max(self.users_per_second, 1e-9)


@dataclass(frozen=True)
class Summary:
    """What a call of :func:`recommend_to_parquet` has done."""

    users: int
    """Users of this process's parts."""
    scored: int
    """Of those, scored now; the others were done already."""
    parts: int
    lines: int
    bytes: int
    seconds: float
    peak_bytes: int
    complete: bool
    """Whether all parts are there, those of other shards included."""


@dataclass(frozen=True)
class Work:
    """A job on a loaded model: writes any of its parts."""

    job: Job
    scorer: Scorer
    users: Users

    @classmethod
    def of(cls, job: Job, model: Recommender) -> Self:
        """Open the users and resolve the filters."""
        scorer = Scorer.of(model, job.filters, popularity_by=job.popularity_by)
        return cls(job, scorer, _users(job, model))

    @property
    def n_parts(self) -> int:
        """How many parts there are; one, without lines, for no users."""
        return max(1, -(-self.users.count // self.job.part_users))

    def users_of(self, part: int) -> tuple[int, int]:
        """The range of users of a part."""
        start = part * self.job.part_users
        return start, min(start + self.job.part_users, self.users.count)

    def tables(self, part: int, allowance: Allowance, tell: Callable[[int], None]) -> Iterator[pa.Table]:
        """The lines of a part, a block of users at a time."""
        start, end = self.users_of(part)
        while True:
            stop = min(start + allowance.users, end)
            yield self.scorer.score(self.users.read(start, stop), self.job.k)
            allowance.after_block()
            tell(stop - start)
            start = stop
            if start >= end:
                return

    def allowance(self) -> Allowance:
        """How many users fit at a time."""
        limit = None if self.job.memory is None else parse_bytes(self.job.memory)
        history = self.scorer.model.history_
        return Allowance(limit, self.job.k, history.nnz / max(history.shape[0], 1))


def recommend_to_parquet(
    model: Recommender | str | Path,
    directory: str | Path,
    job: Job | None = None,
    *,
    shard: tuple[int, int] = (1, 1),
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Write the best items of every user of a job to a directory: user_id, item_id, rank, score, status.

    A part is written aside and renamed, so that what is there is whole; parts that are there already are checked and
    left untouched. A later call with the same model, users and settings goes on where a killed one stopped; one with
    others is refused.

    Args:
        model: fitted, or the directory it was saved to.
        directory: where the parts go.
        job: whom to score and how; all training users, 20 items, by default.
        shard: (i, n): write every n-th part from the i-th, i from 1; the shards may share the directory.
        progress: told after every block.

    Raises:
        ConfigError: a setting is impossible, or the memory limit cannot be kept.
        DataError: the directory belongs to another job or another process, or ids or catalogues do not fit.
        FormatError: a file that is read, or a part that is there, is damaged.
        RecsparseError: the disk is full.

    Example:
        >>> import pyarrow.parquet as pq, scipy.sparse as sp
        >>> from recsparse.models import Popularity
        >>> fitted = Popularity().fit(sp.csr_array([[1, 1, 0], [0, 1, 0]]))
        >>> directory = Path(tempfile.mkdtemp()) / "tonight"
        >>> recommend_to_parquet(fitted, directory, Job(k=1)).lines
        2
        >>> pq.read_table(directory).to_pandas()
           user_id  item_id  rank  score status
        0        0        2     1    0.0   warm
        1        1        0     1    1.0   warm
    """
    job = job or Job()
    number, of = shard
    if not 1 <= number <= of:
        raise ConfigError(f"The shard is {number}/{of}; i of i/n must lie between 1 and n.")
    began = time.perf_counter()
    work, output = open_job(model, directory, job)
    parts = range(number - 1, work.n_parts, of)
    total = sum(stop - start for start, stop in map(work.users_of, parts))
    done = scored = lines = written = peak = 0

    def tell(users: int, *, now: bool = True) -> None:
        nonlocal done, scored, peak
        done, scored, peak = done + users, scored + users * now, max(peak, resident_bytes())
        if progress is not None:
            progress(Progress(done, total, time.perf_counter() - began, scored))

    with output.claim(parts):
        allowance = work.allowance()
        for part in parts:
            if output.is_done(part):
                start, stop = work.users_of(part)
                tell(stop - start, now=False)
                continue
            part_lines, part_bytes = output.write(part, work.tables(part, allowance, tell))
            lines, written = lines + part_lines, written + part_bytes
        complete = output.finish(work.n_parts)
    return Summary(total, scored, len(parts), lines, written, time.perf_counter() - began, peak, complete)


def open_job(model: Recommender | str | Path, directory: str | Path, job: Job) -> tuple[Work, Output]:
    """Load what a job needs and say what its parts are made from."""
    if isinstance(model, Recommender):
        with tempfile.TemporaryDirectory() as aside:
            model.save(Path(aside) / "model")
            digest = digest_files(Path(aside) / "model")
    else:
        digest = digest_files(Path(model))
        model = Recommender.load(model)
    manifest = {
        "format": "recsparse-recommendations",
        "format_version": FORMAT_VERSION,
        "model": digest,
        **job.describe(),
    }
    return Work.of(job, model), Output(Path(directory), manifest)


def _users(job: Job, model: Recommender) -> Users:
    table = None if job.users is None else read_ids(job.users, USER)
    if job.histories is None:
        source = Interactions(model.history_, model.users_, model.items_)
        return MemoryUsers(source, table, trained=True)
    users = DatasetUsers(Path(job.histories), model, match_items=job.match_items)
    if table is None:
        return users
    block = users.read(0, users.count)
    return MemoryUsers(Interactions(block.histories, block.table, model.items_), table, trained=False)


def _digest(source: Ids | None) -> str | None:
    if source is None:
        return None
    if isinstance(source, Path):
        return digest_files(source)
    text = json.dumps([repr(value) for value in source])
    return hashlib.sha256(text.encode()).hexdigest()

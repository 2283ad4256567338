"""Train, validation and test, so that what is measured is what a user would get."""

import inspect
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.files import atomic_directory
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.leakage import Leakage
from recsparse.interactions.protocols import (
    PROTOCOLS,
    TEST,
    TRAIN,
    VALIDATION,
    Block,
    Labeller,
    Labels,
    Whole,
    history_of,
)
from recsparse.interactions.store import fill, read

SPLIT_VERSION = 1


@dataclass(frozen=True)
class Holdout:
    """Users to evaluate on: the same users in the same order, the items of the training data.

    Attributes:
        history: what a model is given of each user; may be empty (cold users).
        target: what it has to find; at least one interaction a user.
    """

    history: Interactions
    target: Interactions

    def check_targets(self) -> None:
        """Refuse users of whom none has a target.

        Raises:
            DataError: nothing can be measured on them.
        """
        if self.target.nnz == 0:
            raise DataError(
                f"The {self.target.shape[0]} validation users have no targets, so nothing can be measured on them; "
                "split the data with some, or train without validation."
            )


@dataclass(frozen=True)
class Split:
    """Interactions cut into training data and two holdouts, all over the same items.

    Attributes:
        train: users with at least one training interaction.
        validation: for tuning.
        test: for the final figure. Where users are seen, their history has their validation interactions too, so
            that those are neither recommended again nor counted as wrong.
        about: protocol, options and seed.
        report: what :class:`recsparse.interactions.leakage.Leakage` counted.
    """

    train: Interactions
    validation: Holdout
    test: Holdout
    about: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


def split(interactions: Interactions, protocol: str = "strong", *, seed: int = 0, **options: Any) -> Split:
    """Cut interactions by a protocol; the options are those of its function in :mod:`recsparse.interactions.protocols`.

    Every interaction goes to exactly one part. The same seed gives the same split on any machine.

    Args:
        interactions: the data.
        protocol: ``strong``, ``few-shot``, ``random``, ``50-25-25``, ``leave-last``, ``time``, ``cold-users``
            or ``cold-items``. See also :func:`predefined` and :func:`mult_vae`.
        seed: decides all that is random.
        **options: for example ``validation=0.1, test=0.1, target=0.2`` for ``strong``.

    Raises:
        ConfigError: the protocol or an option is unknown or impossible.
        DataError: the data cannot be split so (no times, too few users).

    Example:
        >>> rows = np.arange(40)
        >>> from scipy.sparse import csr_array
        >>> data = Interactions.from_csr(csr_array((np.ones(40), (rows // 4, rows % 7)), shape=(10, 7)))
        >>> parts = split(data, "strong", validation=2, test=3, seed=1)
        >>> parts.train.shape, parts.test.history.nnz, parts.test.target.nnz
        ((5, 7), 9, 3)
    """
    whole = whole_of(interactions)
    labels = labeller(protocol, whole, seed, options)(block_of(interactions))
    return assemble(interactions, labels, {"protocol": protocol, "seed": seed, "options": options})


def labeller(protocol: str, whole: Whole, seed: int, options: dict[str, Any]) -> Labeller:
    """Prepare a protocol.

    Raises:
        ConfigError: the protocol or an option is unknown or impossible.
    """
    check_protocol(protocol, options)
    return PROTOCOLS[protocol](whole, seed, **options)


def check_protocol(protocol: str, options: Collection[str] = ()) -> None:
    """Refuse a protocol, or options' names, that are unknown, before there are data.

    Raises:
        ConfigError: it says what there is.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"There is no protocol {protocol!r}; there are: {', '.join(sorted(PROTOCOLS))}.")
    parameters = inspect.signature(PROTOCOLS[protocol]).parameters
    known = [name for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY]
    if unknown := sorted(set(options) - set(known)):
        raise ConfigError(f"The protocol {protocol} has no option {unknown[0]!r}; it has: {', '.join(known)}.")


def assemble(interactions: Interactions, labels: Labels, about: dict[str, Any]) -> Split:
    """Make the parts that the labels say, and the report.

    Raises:
        DataError: the training data or a target would be empty.
    """
    train = _part(interactions, labels == TRAIN, _users_with(interactions, labels == TRAIN))
    validation, test = _holdout(interactions, labels, VALIDATION), _holdout(interactions, labels, TEST)
    for name, part in (("training", train), ("validation", validation.target), ("test", test.target)):
        refuse_empty(name, part.nnz, about)
    leakage = Leakage(interactions.shape[1])
    leakage.add(block_of(interactions), labels)
    later = None
    if train.times is not None:
        later = {name: int((train.times > earliest).sum()) for name, earliest in leakage.earliest.items()}
    return Split(train, validation, test, about, leakage.report(later))


def refuse_empty(name: str, interactions: int, about: dict[str, Any]) -> None:
    """Refuse a part without interactions.

    Raises:
        DataError: it has none.
    """
    if not interactions:
        raise DataError(f"The {name} part would be empty ({about}); hold out more or less, or use more data.")


def write_split(parts: Split, directory: Path, *, overwrite: bool = False) -> Path:
    """Write a split: ``split.json`` and the datasets ``train``, ``validation/history``, ... ``test/target``."""
    directory = Path(directory)
    with atomic_directory(directory, overwrite=overwrite) as partial:
        for name, part in _datasets(parts):
            fill(part, partial / name, name=f"{directory.name}/{name}")
        write_about(partial, parts.about, parts.report)
    return directory


def write_about(directory: Path, about: dict[str, Any], report: dict[str, Any]) -> None:
    """Write ``split.json``."""
    text = json.dumps({"format_version": SPLIT_VERSION, **about, "report": report}, indent=1)
    (directory / "split.json").write_text(text + "\n", encoding="utf-8")


def read_split(directory: Path) -> Split:
    """Read what :func:`write_split` wrote.

    Raises:
        FormatError: it is not a split directory, damaged, or of a version this release does not read.
    """
    directory = Path(directory)
    file = directory / "split.json"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(
            f"{directory} is not a split directory: it has no split.json. Make one with split."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{file} is damaged: {error}.") from error
    if info.get("format_version") != SPLIT_VERSION:
        raise FormatError(f"{file} is of version {info.get('format_version')}; this release reads {SPLIT_VERSION}.")
    validation, test = (
        Holdout(read(directory / name / "history"), read(directory / name / "target"))
        for name in ("validation", "test")
    )
    about = {key: value for key, value in info.items() if key not in {"format_version", "report"}}
    return Split(read(directory / "train"), validation, test, about, info["report"])


def _datasets(parts: Split) -> Iterator[tuple[str, Interactions]]:
    yield "train", parts.train
    for name, holdout in (("validation", parts.validation), ("test", parts.test)):
        yield f"{name}/history", holdout.history
        yield f"{name}/target", holdout.target


def whole_of(interactions: Interactions) -> Whole:
    """Give what a protocol may know of all the data."""
    times = np.zeros(0, dtype=np.int64) if interactions.times is None else interactions.times

    def time_at(share: float) -> int:
        place = int(share * len(times))
        return int(np.partition(times, place)[place])

    counts = np.diff(interactions.matrix.indptr).astype(np.int64)
    return Whole(counts, interactions.shape[1], interactions.times is not None, time_at)


def block_of(interactions: Interactions) -> Block:
    """Give all the data as one block."""
    matrix = interactions.matrix
    counts = np.diff(matrix.indptr)
    users = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), counts)
    first = np.repeat(matrix.indptr[:-1].astype(np.int64), counts)
    return Block(users, matrix.indices.astype(np.int64), interactions.times, first)


def _users_with(interactions: Interactions, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    counts = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
    per_user = np.diff(counts[interactions.matrix.indptr])
    return np.flatnonzero(per_user)


def _part(interactions: Interactions, kept: npt.NDArray[np.bool_], users: npt.NDArray[np.int64]) -> Interactions:
    return interactions.select_entries(kept).select_users(users)


def _holdout(interactions: Interactions, labels: Labels, target: int) -> Holdout:
    found = labels == target
    users = _users_with(interactions, found)
    return Holdout(_part(interactions, np.isin(labels, history_of(target)), users), _part(interactions, found, users))

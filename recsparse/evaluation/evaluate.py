"""Evaluate a model on held-out users: a value a user for every metric, their means, and how certain these are."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.evaluation.intervals import Summary, summarise
from recsparse.evaluation.metrics import PerUser, check_metrics, per_user
from recsparse.evaluation.ranking import Ranking, rank_targets
from recsparse.files import atomic_file
from recsparse.interactions.interactions import ITEM, USER, Interactions
from recsparse.interactions.split import Holdout
from recsparse.kernels.metrics import shared_entries
from recsparse.models.base import Recommender

FORMAT_VERSION = 2
DEFAULT_METRICS = ("ndcg@10", "ndcg@20", "ndcg@100", "recall@20", "recall@50")

Role = Literal["validation", "test", "train"]
"""What the users are for: choosing settings, the final figure, or (train) seeing how well a model recalls its data."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What one model did for every user of one split.

    Attributes:
        name: the model's label.
        role: ``"validation"`` where settings were chosen on these users, ``"test"`` where nothing was, ``"train"``
            where the model was fitted on the very targets (to measure over-fitting).
        split: digest of the users, their histories and targets; two evaluations can be compared only if it is equal.
        metrics: names of the metric columns.
        per_user: a line a user: ``user_id``, ``history`` (items known of the user), ``candidates`` (items ranked),
            ``targets`` (list of item ids), ``ranks`` and ``ties`` (lists of int64, aligned with it, best first; see
            :class:`recsparse.evaluation.ranking.Ranking`), from which any metric can be recomputed; then a float64
            column a metric, NaN where the user has no target.
        n_resamples: bootstrap draws behind the intervals.
        seed: of those draws.
    """

    name: str
    role: Role
    split: str
    metrics: tuple[str, ...]
    per_user: pa.Table
    n_resamples: int = 1000
    seed: int = 0

    def __repr__(self) -> str:
        """The means, not the table behind them."""
        means = ", ".join(f"{metric} {summary.mean:.4f}" for metric, summary in self.summaries.items())
        return f"<Evaluation of {self.name} on {self.n_users:,} {self.role} users: {means}>"

    @cached_property
    def summaries(self) -> dict[str, Summary]:
        """Mean, 95 % interval and number of users of each metric."""
        values = np.stack([self.values(metric) for metric in self.metrics], axis=1)
        return dict(zip(self.metrics, summarise(values, n_resamples=self.n_resamples, seed=self.seed), strict=True))

    @property
    def n_users(self) -> int:
        """Users, those without a target included."""
        return int(self.per_user.num_rows)

    def values(self, metric: str) -> PerUser:
        """One metric a user, (U,) float64; computed from the ranks where it is not a column."""
        if metric in self.metrics:
            return np.asarray(self.per_user[metric].to_numpy())
        return per_user(self.ranking(), metric)

    def ranking(self, items: pa.Table | None = None) -> Ranking:
        """The ranks again as arrays; with ``items`` (the catalogue) the targets are its rows, otherwise all 0."""
        if "ranks" not in self.per_user.column_names:
            raise DataError(f"{self.name} was pooled and has no ranks; it has {', '.join(self.metrics)}.")
        targets = self.per_user["targets"].combine_chunks()
        lengths = np.asarray(targets.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)
        rows = np.zeros(int(lengths.sum()), dtype=np.int32)
        candidates = self.per_user["candidates"].to_numpy()
        n_items = int(candidates.max(initial=1))
        if items is not None:
            n_items = items.num_rows
            catalogue = Interactions.from_csr(np.zeros((0, n_items)))
            catalogue = Interactions(catalogue.matrix, catalogue.users, items)
            rows = catalogue.item_rows(targets.flatten().to_pylist()).astype(np.int32)
            if (rows < 0).any():
                raise DataError("The catalogue lacks some of the targets; pass the items of the split evaluated on.")
        ranks, ties = (self.per_user[name].combine_chunks().flatten().to_numpy() for name in ("ranks", "ties"))
        return Ranking(np.concatenate([[0], np.cumsum(lengths)]), ranks, ties, rows, candidates, n_items)

    def to_frame(self) -> pd.DataFrame:
        """The summaries, a line a metric: mean, low, high, users, without."""
        return pd.DataFrame.from_dict({metric: one.to_dict() for metric, one in self.summaries.items()}, orient="index")

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        frame = self.to_frame()
        return (
            f"<p><b>{escape(self.name)}</b> on {self.n_users} {self.role} users</p>{frame.to_html(float_format='%.4f')}"
        )

    def save(self, path: str | Path) -> None:
        """Write one Parquet file: a line a user; name, split and settings in its metadata."""
        header = {
            "format_version": FORMAT_VERSION, "name": self.name, "role": self.role, "split": self.split,
            "metrics": self.metrics, "n_resamples": self.n_resamples, "seed": self.seed,
        }  # fmt: skip
        with atomic_file(Path(path)) as partial:
            pq.write_table(self.per_user.replace_schema_metadata({"recsparse.evaluation": json.dumps(header)}), partial)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote."""
        try:
            table = pq.read_table(path)
            header: dict[str, Any] = json.loads((table.schema.metadata or {})[b"recsparse.evaluation"])
        except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
            raise FormatError(
                f"{path} cannot be read as an evaluation ({error!r}); evaluate the model again."
            ) from error
        if header.pop("format_version") != FORMAT_VERSION:
            raise FormatError(f"{path} is of another format version than {FORMAT_VERSION}, which this release reads.")
        header["metrics"] = tuple(header["metrics"])
        return cls(per_user=table.replace_schema_metadata(), **header)


def evaluate(
    model: Recommender,
    holdout: Holdout,
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    name: str | None = None,
    role: Role = "test",
    seen: Interactions | None = None,
    among: npt.NDArray[np.bool_] | None = None,
    fold_in: bool = False,
    n_resamples: int = 1000,
    seed: int = 0,
    n_jobs: int | None = None,
) -> Evaluation:
    """Rank the whole catalogue for every user, seen items left out, and measure.

    Args:
        model: fitted.
        holdout: histories and targets.
        metrics: see :mod:`recsparse.evaluation.metrics` for names and formulas.
        name: the model's label; its class by default.
        role: ``"validation"`` where settings are chosen by these figures; ``"train"`` allows a model fitted on them.
        seen: what is left out of the candidates; the histories by default.
        among: (I,) bool, rank these items only (cold ones, say); targets elsewhere do not count.
        fold_in: know users by their history alone, also where the model was trained on them.
        n_resamples: bootstrap draws.
        seed: of the draws; equal seeds draw the same users for every model.
        n_jobs: threads that rank.

    Raises:
        DataError: the model was fitted on some of these targets, or users and items do not match (see
            :func:`recsparse.evaluation.ranking.rank_targets`).
        ConfigError: a metric is unknown.

    Example:
        >>> import scipy.sparse as sp
        >>> from recsparse.models.popularity import Popularity
        >>> model = Popularity().fit(sp.csr_array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]))
        >>> user = pa.table({USER: ["new"]})
        >>> def only(item):
        ...     return Interactions(sp.csr_array(np.eye(4, dtype=np.float32)[[item]]), user, model.items_)
        >>> evaluation = evaluate(model, Holdout(only(1), only(2)), ["ndcg@10", "mrr"])
        >>> evaluation.summaries["mrr"].mean  # three items of one user each: (1 + 1/2 + 1/3) / 3
        0.6111111111111112
    """
    names = check_metrics(metrics)
    if role not in get_args(Role):
        raise ConfigError(f"role is {role!r}; it is one of {', '.join(get_args(Role))}.")
    if role != "train":
        check_not_fitted_on(model, holdout)
    ranking = rank_targets(
        model, holdout.history, holdout.target, seen=seen, among=among, fold_in=fold_in, n_jobs=n_jobs
    )
    indptr = pa.array(ranking.indptr.astype(np.int32))
    item_ids = model.items_[ITEM].combine_chunks().take(pa.array(ranking.items))
    columns: dict[str, Any] = {
        USER: holdout.target.users[USER],
        "history": np.diff(holdout.history.matrix.indptr).astype(np.int64),
        "candidates": ranking.candidates.astype(np.int64),
        "targets": pa.ListArray.from_arrays(indptr, item_ids),
        "ranks": pa.ListArray.from_arrays(indptr, pa.array(ranking.ranks)),
        "ties": pa.ListArray.from_arrays(indptr, pa.array(ranking.ties)),
    }
    columns.update({metric: per_user(ranking, metric) for metric in names})
    return Evaluation(
        name=type(model).__name__ if name is None else name,
        role=role,
        split=split_digest(holdout),
        metrics=names,
        per_user=pa.table(columns),
        n_resamples=n_resamples,
        seed=seed,
    )


def split_digest(holdout: Holdout) -> str:
    """Identify users, histories and targets: SHA-256 over their ids and positions, hexadecimal."""
    digest = hashlib.sha256()
    for part in (holdout.history, holdout.target):
        for ids in (part.user_ids, part.item_ids):
            digest.update(_bytes(ids))
        digest.update(part.matrix.indptr.astype(np.int64).tobytes())
        digest.update(np.ascontiguousarray(part.matrix.indices, dtype=np.int32).data)
    return digest.hexdigest()


def check_not_fitted_on(model: Recommender, holdout: Holdout) -> None:
    """Refuse a model whose training data hold any of the targets.

    Raises:
        DataError: it names how many and the first user.
    """
    target = holdout.target.with_items(model.items_)
    trained = Interactions(model.history_, model.users_, model.items_)
    rows = trained.user_rows(target.user_ids)
    shared = np.empty(len(rows), dtype=np.int64)
    history, asked = model.history_.sorted_indices(), target.matrix.sorted_indices()
    shared_entries(history.indptr, history.indices, rows, asked.indptr, asked.indices, shared)
    if shared.any():
        user = target.user_ids[int(np.flatnonzero(shared)[0])]
        raise DataError(
            f"The model was fitted on {shared.sum()} of these targets (first: user {user!r}), so it would be asked for "
            "what it was told; fit it on the split's training part."
        )


def _bytes(ids: npt.NDArray[Any]) -> bytes:
    return ids.tobytes() if ids.dtype != object else "\n".join(map(repr, ids)).encode()

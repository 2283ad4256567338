"""What every recommender is: an estimator that turns histories into queries and queries into item scores."""

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.files import atomic_directory
from recsparse.interactions.interactions import ITEM, USER, Interactions, Rows
from recsparse.kernels.topk import NO_ITEM, top_k
from recsparse.models.settings import plain
from recsparse.tensors import load_tensors, save_tensors

FORMAT_VERSION = 1

WARM, FOLDED_IN, COLD = "warm", "folded-in", "cold"
"""A recommendation's status: the user was trained on; a history was given; neither is there."""

Scores = npt.NDArray[np.float32]
Queries = Any
"""What a model's ``fold_in`` gives, one row a user: (B, D) float32 of factor models, a CSR of item-item models."""

_USERS = 1 << 14
"""Users represented at a time."""

_SCORE_BYTES = 32 << 20
"""Scores in memory at a time."""


Model = TypeVar("Model", bound="Recommender")


class Recommender(BaseEstimator, ABC):  # type: ignore[misc]
    """Base of all models: scikit-learn's conventions, original ids at the boundary, rows inside.

    A model ranks by ``scores(fold_in(histories))``. A user of the training data is *warm*, a history given later is
    *folded in*, and who has neither is *cold*, which ``status`` says: the most popular items answer, or the user's
    features where the model learned them (:meth:`unknown`).

    Attributes:
        items_: the training items, ``item_id`` and features, in column order.
        users_: the training users, ``user_id`` and features, in row order.
        history_: what the model was fitted on, (U, I) CSR.
        popularity_: interactions per item, float32 (I,); what answers :meth:`unknown` users.
    """

    kind: ClassVar[str]
    """The name under which files and configurations know the class."""

    search_space: ClassVar[dict[str, Any]] = {}
    """Where ``recsparse tune`` looks: a setting's choices, or its ``low``, ``high`` and whether it is ``log``."""

    items_: pa.Table
    users_: pa.Table
    history_: sp.csr_array
    popularity_: npt.NDArray[np.float32]

    def fit(self, interactions: Interactions | sp.csr_array) -> Self:
        """Learn from interactions (or a bare CSR, whose row numbers become the ids)."""
        if not isinstance(interactions, Interactions):
            interactions = Interactions.from_csr(interactions)
        if interactions.nnz == 0:
            raise DataError("There are no interactions to learn from; the matrix is empty.")
        self.items_, self.users_, self.history_ = interactions.items, interactions.users, interactions.matrix
        self.popularity_ = np.bincount(interactions.matrix.indices, minlength=interactions.shape[1]).astype(np.float32)
        self._fit(interactions)
        return self

    @abstractmethod
    def _fit(self, interactions: Interactions) -> None:
        """Learn; ``items_``, ``users_``, ``history_`` and ``popularity_`` are set already."""

    @abstractmethod
    def _fold_in(self, histories: sp.csr_array) -> Queries:
        """Represent users by (B, I) histories over the training items."""

    @abstractmethod
    def scores(self, queries: Queries) -> Scores:
        """Score every item for every query: (B, I) float32, higher is better."""

    @abstractmethod
    def _save_state(self, directory: Path) -> None:
        """Write what was learned into ``directory``."""

    @abstractmethod
    def _load_state(self, directory: Path) -> None:
        """Read what ``_save_state`` wrote."""

    def fold_in(self, histories: Interactions | sp.csr_array) -> Queries:
        """Represent users by their histories alone, without a refit.

        Args:
            histories: interactions of any users over any items (matched by id; unknown items are left out), or a CSR
                over this model's items.

        Returns:
            One query a user, for :meth:`scores`.
        """
        return self._fold_in(self._histories(histories))

    def queries(self, interactions: Interactions) -> Queries:
        """Represent users for :meth:`scores`: those trained on by what training gave them, others folded in.

        The same as :meth:`fold_in` but for models that learn a row a user (MF). One query a user, in order; a block of
        users is a slice of it.
        """
        check_is_fitted(self, "items_")
        rows = Interactions(self.history_, self.users_, self.items_).user_rows(interactions.user_ids)
        return self._represent(rows, self._histories(interactions), interactions.users)

    def unknown(self, histories: sp.csr_array, users: pa.Table | None = None) -> npt.NDArray[np.bool_]:
        """Of whom nothing is known, (B,): the most popular items answer, in recommending, scoring and evaluating alike.

        Args:
            histories: (B, I).
            users: (B,) their features; models that learned what these say know who has some of them.
        """
        return np.asarray(np.diff(histories.indptr) == 0)

    def _represent(self, rows: Rows, histories: sp.csr_array, users: pa.Table | None = None) -> Queries:
        """Represent users by training row (-1: not trained on), history and features; who learns more overrides it."""
        return self._fold_in(histories)

    def recommend(
        self, users: Any = None, k: int = 10, *, histories: Interactions | None = None, exclude_seen: bool = True
    ) -> pd.DataFrame:
        """The ``k`` best items for each user.

        Args:
            users: original ids, of training users or, with ``histories``, of users there; all of them by default.
            k: how many items.
            histories: interactions to represent the users by, instead of those trained on.
            exclude_seen: leave out the items of the user's history.

        Returns:
            Columns user_id, item_id, rank (from 1), score (float32) and status (warm, folded-in, cold). A user with
            no history gets the most popular items, or what the user's features say where the model learned them.
            Fewer than ``k`` lines where fewer items remain.

        Example:
            >>> from recsparse.models import Popularity
            >>> model = Popularity().fit(sp.csr_array([[1, 1, 0], [0, 1, 0]]))
            >>> model.recommend([1], k=1)
               user_id  item_id  rank  score status
            0        1        0     1    1.0   warm
        """
        check_is_fitted(self, "items_")
        if not isinstance(k, int | np.integer) or k < 1:
            raise ConfigError(f"k is {k!r}; it must be a whole number of at least 1.")
        source = Interactions(self.history_, self.users_, self.items_)
        if histories is not None:
            source = histories.with_items(self.items_)
        ids = source.user_ids if users is None else pd.Index(users).to_numpy()
        rows = source.user_rows(ids)
        trained = rows if histories is None else np.full_like(rows, -1)
        k = min(int(k), source.shape[1])
        items = np.empty((len(rows), k), dtype=np.int32)
        scores = np.empty((len(rows), k), dtype=np.float32)
        cold = np.empty(len(rows), dtype=np.bool_)
        for start in range(0, len(rows), _USERS):
            block = slice(start, min(start + _USERS, len(rows)))
            history = take_rows(source.matrix, rows[block])
            cold[block] = np.diff(history.indptr) == 0
            seen = history if exclude_seen else None
            features = source.users.take(pa.array(rows[block], mask=rows[block] < 0))
            items[block], scores[block] = self.best_items(trained[block], history, k, excluded=seen, users=features)
        status = np.where(cold, COLD, WARM if histories is None else FOLDED_IN)
        line = items != NO_ITEM
        lines = line.sum(axis=1)
        return pd.DataFrame(
            {
                USER: np.repeat(ids, lines),
                ITEM: Interactions(self.history_, self.users_, self.items_).item_ids[items[line]],
                "rank": np.nonzero(line)[1].astype(np.int32) + 1,
                "score": scores[line],
                "status": np.repeat(status, lines),
            }
        )

    def best_items(
        self,
        rows: Rows,
        histories: sp.csr_array,
        k: int,
        *,
        excluded: sp.csr_array | None = None,
        candidates: Rows | None = None,
        users: pa.Table | None = None,
    ) -> tuple[npt.NDArray[np.int32], Scores]:
        """The ``k`` best items by row: what :meth:`recommend` and batch scoring are made of.

        Args:
            rows: (B,) training rows, -1 for users not trained on.
            histories: (B, I) over the training items.
            k: how many.
            excluded: (B, I), items to leave out.
            candidates: ascending item rows to choose from; all by default.
            users: (B,) the users' features, for models that learned what these say.

        Returns:
            Item rows (B, k) int32 and scores (B, k) float32, best first, ties to the lower row; -1 and -inf where
            fewer remain. They do not depend on which users are asked for together, nor on the number of threads.
        """
        pattern = sp.csr_array(histories.shape, dtype=np.float32) if excluded is None else excluded
        if candidates is not None:
            pattern = sp.csr_array(pattern[:, candidates])
        if not pattern.has_sorted_indices:
            pattern = pattern.sorted_indices()
        items, scores = self._best(self._represent(rows, histories, users), k, pattern, candidates)
        unknown = np.flatnonzero(self.unknown(histories, users))
        popularity = self.popularity_ if candidates is None else self.popularity_[candidates]
        for start in range(0, len(unknown), 256):
            some = unknown[start : start + 256]
            left_out = sp.csr_array(pattern[some])
            counts = np.broadcast_to(popularity, (len(some), len(popularity)))
            items[some], scores[some] = top_k(counts, k, left_out.indptr, left_out.indices)
        if candidates is not None:
            items = np.where(items == NO_ITEM, NO_ITEM, candidates[items]).astype(np.int32)
        return items, scores

    def _best(
        self, queries: Queries, k: int, excluded: sp.csr_array, candidates: Rows | None
    ) -> tuple[npt.NDArray[np.int32], Scores]:
        """Select among the candidates, numbered from 0; who need not have all scores in memory overrides this."""
        n_users = excluded.shape[0]
        items = np.empty((n_users, k), dtype=np.int32)
        values = np.empty((n_users, k), dtype=np.float32)
        step = max(1, _SCORE_BYTES // (4 * self.items_.num_rows))
        for start in range(0, n_users, step):
            block = slice(start, min(start + step, n_users))
            scores = self.scores(queries[block])
            if candidates is not None:
                scores = scores[:, candidates]
            items[block], values[block] = top_k(scores, k, excluded.indptr[start : block.stop + 1], excluded.indices)
        return items, values

    def score_pairs(self, users: Any, items: Any) -> Scores:
        """Score training users against items, pair by pair, by original ids: float32, NaN where an id is unknown."""
        check_is_fitted(self, "items_")
        source = Interactions(self.history_, self.users_, self.items_)
        user_rows, item_rows = source.user_rows(users), source.item_rows(items)
        if user_rows.shape != item_rows.shape:
            raise DataError(f"There are {len(user_rows)} users for {len(item_rows)} items; give one item a user.")
        result = np.full(len(user_rows), np.nan, dtype=np.float32)
        known = np.flatnonzero((user_rows >= 0) & (item_rows >= 0))
        distinct, position = np.unique(user_rows[known], return_inverse=True)
        order = np.argsort(position, kind="stable")
        bounds = np.searchsorted(position[order], np.arange(0, len(distinct) + 1024, 1024))
        for number, (start, stop) in enumerate(pairwise(bounds)):
            pairs = order[start:stop]
            users_of_block = distinct[number * 1024 : (number + 1) * 1024]
            features = self.users_.take(pa.array(users_of_block))
            queries = self._represent(users_of_block, source.matrix[users_of_block], features)
            result[known[pairs]] = self._pair_scores(queries, position[pairs] - number * 1024, item_rows[known[pairs]])
        return result

    def _pair_scores(self, queries: Queries, which: Rows, items: Rows) -> Scores:
        """Score query ``which[n]`` against item ``items[n]``; who need not score all items for it overrides this."""
        scores: Scores = self.scores(queries)[which, items]
        return scores

    def save(self, directory: str | Path, *, overwrite: bool = False) -> None:
        """Write the fitted model: JSON, Parquet and safetensors, never pickle; whole or not at all."""
        check_is_fitted(self, "items_")
        with atomic_directory(Path(directory), overwrite=overwrite) as partial:
            pq.write_table(self.items_, partial / "items.parquet")
            pq.write_table(self.users_, partial / "users.parquet")
            history = self.history_
            save_tensors(
                {"indptr": history.indptr, "indices": history.indices, "data": history.data},
                partial / "history.safetensors",
            )
            self._save_state(partial)
            header = {
                "format": "recsparse-model",
                "format_version": FORMAT_VERSION,
                "kind": self.kind,
                "params": self.get_params(),
                "items_digest": items_digest(self.items_),
            }
            (partial / "model.json").write_text(json.dumps(header, indent=2, default=plain))

    @classmethod
    def of_kind(cls, kind: str) -> type[Self]:
        """The subclass known to files and configurations as ``kind``.

        Raises:
            ConfigError: there is none.
        """
        kinds = {subclass.kind: subclass for subclass in _subclasses(cls)}
        if kind not in kinds:
            raise ConfigError(f"There is no model {kind!r} here; there are: {', '.join(sorted(kinds))}.")
        return kinds[kind]

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read what :meth:`save` wrote. Called on a subclass it refuses another kind; on the base it takes any.

        The output of a sharded training is read as the ``mf`` that it is.
        """
        directory = Path(directory)
        if not (directory / "model.json").exists() and (directory / "training.json").exists():
            from recsparse.distributed import load_model  # noqa: PLC0415 (it needs models)

            if not isinstance(sharded := load_model(directory), cls):
                raise FormatError(f"{directory} holds a sharded mf, not {cls.kind}.")
            return sharded
        header = _read_header(directory / "model.json")
        try:
            model = cls.of_kind(header["kind"])(**header["params"])
        except (ConfigError, TypeError) as error:
            raise FormatError(f"{directory} holds a model that cannot be read here: {error}") from error
        try:
            model.items_ = pq.read_table(directory / "items.parquet")
            model.users_ = pq.read_table(directory / "users.parquet")
            history = load_tensors(directory / "history.safetensors", "indptr", "indices", "data")
        except (OSError, pa.ArrowInvalid) as error:
            raise FormatError(f"{directory} is damaged ({error}); save the model again.") from error
        if items_digest(model.items_) != header["items_digest"]:
            raise FormatError(f"{directory}/items.parquet is not the catalogue this model was saved with.")
        shape = (model.users_.num_rows, model.items_.num_rows)
        model.history_ = sp.csr_array((history["data"], history["indices"], history["indptr"]), shape=shape)
        model.popularity_ = np.bincount(history["indices"], minlength=shape[1]).astype(np.float32)
        model._load_state(directory)
        return model

    def _histories(self, histories: Interactions | sp.csr_array) -> sp.csr_array:
        check_is_fitted(self, "items_")
        if isinstance(histories, Interactions):
            return histories.with_items(self.items_).matrix
        if histories.shape[1] != self.items_.num_rows:
            raise DataError(
                f"The histories have {histories.shape[1]} items, the model {self.items_.num_rows}; "
                "pass Interactions to match them by id."
            )
        return sp.csr_array(histories, dtype=np.float32)


def trains_in_epochs(model: Recommender) -> bool:
    """Whether its ``fit`` takes ``validation``, ``checkpoint`` and ``on_epoch``."""
    return "on_epoch" in inspect.signature(model.fit).parameters


def items_digest(items: pa.Table) -> str:
    """Identify a catalogue: SHA-256 over its item ids in order."""
    digest = hashlib.sha256()
    for item in items[ITEM].to_pylist():
        digest.update(f"{item!r}\n".encode())
    return digest.hexdigest()


def take_rows(matrix: sp.csr_array, rows: npt.NDArray[np.int64]) -> sp.csr_array:
    """Take rows of a CSR; -1 gives an empty row."""
    taken = sp.csr_array(matrix[np.maximum(rows, 0)])
    if (rows >= 0).all():
        return taken
    lengths = np.where(rows >= 0, np.diff(taken.indptr), 0)
    keep = np.repeat(rows >= 0, np.diff(taken.indptr))
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    return sp.csr_array((taken.data[keep], taken.indices[keep], indptr), shape=taken.shape)


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read ({error}); is this a saved model's directory?") from error
    if header.get("format") != "recsparse-model":
        raise FormatError(f"{path} does not describe a recsparse model.")
    if header.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {header.get('format_version')}; this release reads {FORMAT_VERSION}. "
            "Upgrade recsparse, or save the model again."
        )
    return header


def _subclasses(cls: type[Model]) -> Iterator[type[Model]]:
    if hasattr(cls, "kind"):
        yield cls
    for subclass in cls.__subclasses__():
        yield from _subclasses(subclass)

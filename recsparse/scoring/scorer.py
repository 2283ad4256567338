"""From users to lists: the exact best K of what the filters leave, with original ids and a status."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
from sklearn.utils.validation import check_is_fitted

from recsparse.errors import ConfigError
from recsparse.interactions.interactions import ITEM, USER, Interactions
from recsparse.kernels.caps import cap_rows
from recsparse.kernels.topk import NO_ITEM, top_k
from recsparse.models.base import COLD, FOLDED_IN, WARM, Recommender, Scores
from recsparse.scoring.filters import Filters, Rules, resolve
from recsparse.scoring.users import Block, MemoryUsers

RANK, SCORE, STATUS = "rank", "score", "status"

Items = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Scorer:
    """A fitted model and filters, ready to score any block of users.

    Attributes:
        model: fitted.
        rules: the filters, resolved.
        groups: what is popular with whom, for cold users.
    """

    model: Recommender
    rules: Rules
    groups: "Groups | None" = None

    @classmethod
    def of(cls, model: Recommender, filters: Filters | None = None, *, popularity_by: str | None = None) -> Self:
        """Prepare a model.

        Args:
            model: fitted.
            filters: none but the user's own history by default.
            popularity_by: a feature of users; a cold user gets what is popular among trained users of the same value.

        Raises:
            ConfigError, DataError: a filter or the feature does not fit the model.

        Example:
            >>> from recsparse.models import Popularity
            >>> model = Popularity().fit(sp.csr_array([[1, 1, 0], [0, 1, 0], [1, 0, 1]]))
            >>> histories = Interactions.from_csr([[0, 1, 0]])
            >>> Scorer.of(model, Filters(deny=[2])).top_k(histories, 2).to_pandas()
               user_id  item_id  rank  score     status
            0        0        0     1    2.0  folded-in
        """
        check_is_fitted(model, "items_")
        groups = None if popularity_by is None else Groups.of(model, popularity_by)
        return cls(model, resolve(filters or Filters(), model), groups)

    def top_k(self, histories: Interactions, k: int) -> pa.Table:
        """The best ``k`` items for users given by their histories.

        Returns:
            user_id, item_id, rank (int32, from 1), score (float32) and status; ``to_pandas()`` makes a frame of it.
        """
        source = histories.with_items(self.model.items_)
        return self.score(MemoryUsers(source, trained=False).read(0, source.shape[0]), k)

    def score(self, block: Block, k: int) -> pa.Table:
        """The best ``k`` items for a block of users, as lines ordered by user and rank."""
        if k < 1:
            raise ConfigError(f"k is {k}; it must be at least 1.")
        items, scores = self._select(block, min(k, self._n_candidates))
        cold = np.diff(block.histories.indptr) == 0
        status = np.where(cold, 2, np.where(block.rows >= 0, 0, 1)).astype(np.int8)
        line = items != NO_ITEM
        user = np.repeat(np.arange(len(items)), line.sum(axis=1))
        statuses = pa.array([WARM, FOLDED_IN, COLD])
        return pa.table({
            USER: block.table[USER].combine_chunks().take(pa.array(user)),
            ITEM: self.model.items_[ITEM].combine_chunks().take(pa.array(items[line])),
            RANK: (np.nonzero(line)[1] + 1).astype(np.int32),
            SCORE: scores[line],
            STATUS: pa.DictionaryArray.from_arrays(status[user], statuses).cast(pa.string()),
        })  # fmt: skip

    @property
    def _n_candidates(self) -> int:
        candidates = self.rules.candidates
        return int(self.model.items_.num_rows if candidates is None else len(candidates))

    def _select(self, block: Block, k: int) -> tuple[Items, Scores]:
        excluded = self.rules.excluded(block)
        if self.rules.categories is None:
            return self._rank(block, excluded, k)
        items = np.empty((len(block.rows), k), dtype=np.int32)
        scores = np.empty(items.shape, dtype=np.float32)
        todo, width = np.arange(len(block.rows)), min(4 * k, self._n_candidates)
        while len(todo):
            part = Block(block.table.take(pa.array(todo)), block.rows[todo], sp.csr_array(block.histories[todo]))
            ranked, values = self._rank(part, sp.csr_array(excluded[todo]), width)
            some_items, some_scores = items[todo], scores[todo]
            filled = cap_rows(ranked, values, self.rules.categories, self.rules.cap, some_items, some_scores)
            items[todo], scores[todo] = some_items, some_scores
            # A list is final when it is full, or when the ranking it was cut from had nothing more to give.
            short = (filled < k) & (ranked[:, -1] != NO_ITEM) & (width < self._n_candidates)
            todo, width = todo[short], min(4 * width, self._n_candidates)
        return items, scores

    def _rank(self, block: Block, excluded: sp.csr_array, k: int) -> tuple[Items, Scores]:
        candidates = self.rules.candidates
        items, scores = self.model.best_items(
            block.rows, block.histories, k, excluded=excluded, candidates=candidates, users=block.table
        )
        if self.groups is not None:
            cold = np.flatnonzero(np.diff(block.histories.indptr) == 0)
            self.groups.answer(block.table, cold, excluded, candidates, items, scores)
        return items, scores


@dataclass(frozen=True)
class Groups:
    """What is popular among the trained users of each value of a feature.

    Attributes:
        feature: column of the users.
        row_of: row of ``counts`` by the feature's value.
        counts: (groups, I) float32, interactions per item.
    """

    feature: str
    row_of: dict[object, int]
    counts: npt.NDArray[np.float32]

    @classmethod
    def of(cls, model: Recommender, feature: str) -> Self:
        """Count by a feature of the model's users; who has no value is in no group."""
        if feature not in model.users_.column_names:
            raise ConfigError(f"The users have no column {feature!r}; the model knows {model.users_.column_names}.")
        encoded = model.users_[feature].combine_chunks().dictionary_encode()
        codes = np.asarray(encoded.indices.fill_null(-1))
        known = np.flatnonzero(codes >= 0)
        n_groups = len(encoded.dictionary)
        member = sp.csr_array((np.ones(len(known)), (codes[known], known)), shape=(n_groups, len(codes)))
        ones = sp.csr_array(
            (np.ones(model.history_.nnz), model.history_.indices, model.history_.indptr), shape=model.history_.shape
        )
        counts = (member @ ones).toarray().astype(np.float32)
        return cls(feature, {value: row for row, value in enumerate(encoded.dictionary.to_pylist())}, counts)

    def answer(
        self, users: pa.Table, cold: npt.NDArray[np.int64], excluded: sp.csr_array,
        candidates: npt.NDArray[np.int64] | None, items: Items, scores: Scores,
    ) -> None:  # fmt: skip
        """Overwrite the lists of those ``cold`` users whose group is known."""
        if self.feature not in users.column_names or not len(cold):
            return
        values = users[self.feature].take(pa.array(cold)).to_pylist()
        rows = np.array([self.row_of.get(value, -1) for value in values])
        cold, rows = cold[rows >= 0], rows[rows >= 0]
        for start in range(0, len(cold), 256):
            some = cold[start : start + 256]
            counts, left_out = self.counts[rows[start : start + 256]], sp.csr_array(excluded[some])
            if candidates is not None:
                counts, left_out = counts[:, candidates], sp.csr_array(left_out[:, candidates])
            chosen, scores[some] = top_k(counts, items.shape[1], left_out.indptr, left_out.indices)
            if candidates is not None:
                chosen = np.where(chosen == NO_ITEM, NO_ITEM, candidates[chosen])
            items[some] = chosen

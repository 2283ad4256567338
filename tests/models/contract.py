"""What every model promises: a model's test class inherits :class:`ModelContract` and names its model."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone

from recsparse.errors import ConfigError, DataError
from recsparse.interactions.interactions import ITEM, USER, Interactions
from recsparse.models import COLD, FOLDED_IN, WARM, Recommender
from tests.models.known import SIDE, checkerboard, histories


class ModelContract:
    """Set ``model`` to an unfitted model that can learn a checkerboard."""

    model: ClassVar[Recommender]
    personalised: ClassVar[bool] = True
    """Whether two users may get different lists; popularity's may not."""

    @pytest.fixture(scope="class")
    def data(self) -> Interactions:
        return checkerboard()

    @pytest.fixture(scope="class")
    def fitted(self, data: Interactions) -> Recommender:
        return clone(self.model).fit(data)

    def test_fit_returns_the_model_and_leaves_params_alone(self, data: Interactions) -> None:
        model = clone(self.model)
        before = model.get_params()
        assert model.fit(data) is model
        assert model.get_params() == before == self.model.get_params()

    def test_params_are_json(self) -> None:
        assert type(self.model)(**json.loads(json.dumps(self.model.get_params()))).get_params() == (
            self.model.get_params()
        )

    def test_unfitted_model_says_so(self) -> None:
        with pytest.raises(Exception, match="not fitted"):
            clone(self.model).recommend([1])

    def test_every_user_is_recommended_the_one_right_item(self, data: Interactions, fitted: Recommender) -> None:
        top = fitted.recommend(k=1)
        assert top[USER].tolist() == data.user_ids.tolist()
        assert (top["status"] == WARM).all()
        if self.personalised:
            assert top[ITEM].tolist() == data.item_ids.tolist()

    def test_folded_in_history_is_recommended_its_colour(self, data: Interactions, fitted: Recommender) -> None:
        even, odd = data.item_ids[::2], data.item_ids[1::2]
        new = histories([even[:10].tolist(), odd[:10].tolist()], [1, 2])
        top = fitted.recommend(histories=new, k=10)
        assert (top["status"] == FOLDED_IN).all()
        if self.personalised:
            assert set(top[ITEM][top[USER] == 1]) == set(even[10:])
            assert set(top[ITEM][top[USER] == 2]) == set(odd[10:])

    def test_folded_in_items_are_matched_by_id_and_unknown_ones_ignored(
        self, data: Interactions, fitted: Recommender
    ) -> None:
        known = histories([data.item_ids[:8].tolist()], [1])
        reordered = histories([[-5, *data.item_ids[:8].tolist(), 10**9]], [1])
        pd.testing.assert_frame_equal(
            fitted.recommend(histories=known, k=5), fitted.recommend(histories=reordered, k=5)
        )

    def test_unknown_user_is_cold_and_gets_the_popular_items(self, data: Interactions, fitted: Recommender) -> None:
        answer = fitted.recommend([data.user_ids[3], -7], k=3)
        assert answer["status"].tolist() == [WARM] * 3 + [COLD] * 3
        popularity = data.matrix.sum(axis=0)
        assert answer[ITEM].tolist()[3:] == data.item_ids[np.argsort(-popularity, kind="stable")[:3]].tolist()

    def test_ids_of_two_types_keep_theirs(self, data: Interactions, fitted: Recommender) -> None:
        answer = fitted.recommend([data.user_ids[3], "a stranger"], k=1)
        assert answer["status"].tolist() == [WARM, COLD]
        assert answer[USER].tolist() == [data.user_ids[3], "a stranger"]

    def test_empty_history_is_cold(self, data: Interactions, fitted: Recommender) -> None:
        nobody = Interactions.from_csr(sp.csr_array((2, SIDE), dtype=np.float32))
        answer = fitted.recommend(histories=nobody, k=2)
        assert len(answer) == 4
        assert (answer["status"] == COLD).all()
        empty = fitted.scores(fitted.fold_in(sp.csr_array((2, SIDE), dtype=np.float32)))
        assert empty.shape == (2, SIDE)
        assert np.isfinite(empty).all()

    def test_no_users_at_all(self, fitted: Recommender) -> None:
        answer = fitted.recommend([], k=2)
        assert len(answer) == 0
        assert answer.columns.tolist() == [USER, ITEM, "rank", "score", "status"]

    def test_recommended_items_are_unseen_unless_asked_for(self, data: Interactions, fitted: Recommender) -> None:
        seen = set(zip(*data.to_frame()[[USER, ITEM]].to_numpy().T, strict=True))
        unseen = fitted.recommend(k=SIDE)
        assert not seen & set(zip(unseen[USER], unseen[ITEM], strict=True))
        everything = fitted.recommend(k=SIDE, exclude_seen=False)
        assert seen < set(zip(everything[USER], everything[ITEM], strict=True))

    def test_k_larger_than_the_catalogue_gives_what_is_left(self, data: Interactions, fitted: Recommender) -> None:
        answer = fitted.recommend([data.user_ids[0]], k=10 * SIDE)
        assert len(answer) == SIDE - data.matrix[[0]].nnz
        assert answer["rank"].tolist() == list(range(1, len(answer) + 1))
        assert (np.diff(answer["score"]) <= 0).all()

    @pytest.mark.parametrize("k", [0, -1, 1.5, "3"])
    def test_k_below_one_is_refused(self, fitted: Recommender, k: object) -> None:
        with pytest.raises(ConfigError, match="at least 1"):
            fitted.recommend(k=k)  # type: ignore[arg-type]

    def test_scores_are_finite_float32(self, data: Interactions, fitted: Recommender) -> None:
        scores = fitted.scores(fitted.fold_in(data))
        assert scores.shape == data.shape
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()

    def test_queries_rank_as_recommended(self, data: Interactions, fitted: Recommender) -> None:
        scores = fitted.scores(fitted.queries(data))
        top = fitted.recommend(k=3, exclude_seen=False)
        values = scores[data.user_rows(top[USER]), data.item_rows(top[ITEM])]
        np.testing.assert_allclose(values, top["score"], rtol=1e-4, atol=1e-5)
        assert (values >= np.repeat(np.sort(scores, axis=1)[:, -3], 3) - 1e-5).all()

    def test_pairs_score_as_recommended(self, fitted: Recommender) -> None:
        top = fitted.recommend(k=3)
        np.testing.assert_allclose(fitted.score_pairs(top[USER], top[ITEM]), top["score"], rtol=1e-4, atol=1e-5)

    def test_pairs_of_unknown_ids_are_nan(self, data: Interactions, fitted: Recommender) -> None:
        user, item = data.user_ids[0], data.item_ids[0]
        assert np.isnan(fitted.score_pairs([user, -1, user], [item, item, -1])).tolist() == [False, True, True]

    def test_bare_csr_is_rows_as_ids(self, data: Interactions, fitted: Recommender) -> None:
        bare = clone(self.model).fit(data.matrix).recommend(k=3)
        own = fitted.recommend(k=3)
        assert data.item_ids[bare[ITEM]].tolist() == own[ITEM].tolist()
        assert data.user_ids[bare[USER]].tolist() == own[USER].tolist()

    def test_string_ids(self, data: Interactions, fitted: Recommender) -> None:
        named = checkerboard("string")
        answer = clone(self.model).fit(named).recommend([named.user_ids[5], "nobody"], k=1)
        assert answer["status"].tolist() == [WARM, COLD]
        same = fitted.recommend([data.user_ids[5]], k=1)[ITEM]
        assert named.item_rows(answer[ITEM][:1]) == data.item_rows(same)

    def test_saved_and_loaded_model_is_equal(self, fitted: Recommender, data: Interactions, tmp_path: Path) -> None:
        fitted.save(tmp_path / "model")
        loaded = Recommender.load(tmp_path / "model")
        assert type(loaded) is type(fitted)
        assert loaded.get_params() == fitted.get_params()
        pd.testing.assert_frame_equal(loaded.recommend(k=SIDE), fitted.recommend(k=SIDE))
        np.testing.assert_array_equal(loaded.scores(loaded.fold_in(data)), fitted.scores(fitted.fold_in(data)))
        with pytest.raises(DataError, match="exists already"):
            fitted.save(tmp_path / "model")

    def test_nothing_is_pickled(self, fitted: Recommender, tmp_path: Path) -> None:
        fitted.save(tmp_path / "model")
        kinds = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
        assert kinds <= {".json", ".parquet", ".safetensors"}

    def test_refit_equals_a_fresh_fit(self, data: Interactions, fitted: Recommender) -> None:
        other = Interactions.from_csr(sp.csr_array(np.tril(np.ones((12, 9), dtype=np.float32))))
        model = clone(self.model).fit(other)
        assert model.recommend([0], k=3)[ITEM].max() < 9
        pd.testing.assert_frame_equal(model.fit(data).recommend(k=SIDE), fitted.recommend(k=SIDE))

    def test_empty_data_is_refused(self) -> None:
        with pytest.raises(DataError, match="no interactions"):
            clone(self.model).fit(sp.csr_array((3, 4), dtype=np.float32))

    def test_an_item_nobody_has_does_no_harm(self) -> None:
        matrix = sp.csr_array(np.pad(checkerboard().matrix.toarray(), ((0, 1), (0, 1))))
        model = clone(self.model).fit(matrix)
        assert np.isfinite(model.scores(model.fold_in(matrix))).all()
        assert model.recommend([SIDE], k=1)["status"].tolist() == [COLD]

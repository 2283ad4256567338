from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError
from recsparse.models import LowRankIALS, Recommender
from recsparse.tables import FactoredTable
from tests.models.contract import ModelContract
from tests.models.test_ials import ratings

GRADUAL = {"density": 0.25, "schedule": {"kind": "gradual", "start": 0.3, "end": 0.8}}


class TestLowRank(ModelContract):
    model = LowRankIALS(dim=4, basis=8, epochs=12, recipe=GRADUAL)


class TestLowRankByDegree(ModelContract):
    model = LowRankIALS(dim=4, basis=8, epochs=12, recipe=GRADUAL, degree_power=0.25)


class TestLowRankInt8(ModelContract):
    model = LowRankIALS(dim=4, basis=8, epochs=12, recipe=GRADUAL, value_type="int8")


def test_the_table_is_a_product_with_the_budget_in_its_sparse_part() -> None:
    model = LowRankIALS(dim=8, basis=16, epochs=12, recipe=GRADUAL).fit(ratings())
    table = model.item_table_
    assert isinstance(table, FactoredTable)
    S, B = table.sparse.to_dense(), table.basis.to_dense()
    assert np.count_nonzero(S) == round(0.25 * S.size)
    np.testing.assert_allclose(S @ B, table.to_dense(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(B, axis=1), 1, atol=1e-4)


def test_groups_of_items_need_one_basis_vector_each() -> None:
    groups = np.arange(200) % 5
    X = sp.csr_array((groups[:, None] == groups[None, :100]).astype(np.float32))
    recipe = {"density": 1 / 10, "schedule": {"kind": "gradual", "start": 0.2, "end": 0.6}, "allocation": "uniform"}
    model = LowRankIALS(dim=6, basis=10, epochs=30, reg=1e-3, recipe=recipe).fit(X)
    scores = model.scores(model.fold_in(X))
    assert (np.count_nonzero(model.item_table_.sparse.to_dense(), axis=1) == 1).all()
    assert ((scores > 0.5) == (X.toarray() > 0)).mean() > 0.95


def test_it_survives_saving_and_repacking(tmp_path: object) -> None:
    model = LowRankIALS(dim=4, basis=8, epochs=8, recipe=GRADUAL).fit(ratings())
    packed = model.repack("int4")
    assert packed.item_table_.value_type == "int4 x int8"
    packed.save(f"{tmp_path}/model")
    loaded = Recommender.load(f"{tmp_path}/model")
    np.testing.assert_array_equal(loaded.item_table_.to_dense(), packed.item_table_.to_dense())


def test_a_budget_in_bytes_counts_the_basis() -> None:
    recipe = {"bytes": 500, "schedule": {"kind": "gradual", "end": 0.8}}
    table = LowRankIALS(dim=4, basis=8, epochs=8, recipe=recipe, value_type="int8").fit(ratings()).item_table_
    assert 480 < table.nbytes <= 500


@pytest.mark.parametrize("setting", ["basis", "epochs"])
def test_too_little_to_train_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} is 0"):
        LowRankIALS(dim=4).set_params(**{setting: 0}).fit(ratings())


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes no validation, checkpoint"):
        LowRankIALS(dim=4).fit(ratings(), checkpoint=tmp_path / "c")

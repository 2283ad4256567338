from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError
from recsparse.models import LowRankIALS, Recommender
from recsparse.tables import FactoredTable
from tests.models.contract import ModelContract
from tests.models.test_ials import ratings
from tests.models.test_ials_training import StopError, holdout

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


def test_impossible_settings_are_refused_before_the_first_epoch() -> None:
    blocks = {"density": 0.5, "schedule": "oneshot", "granularity": {"kind": "block", "columns": 4}}
    assert LowRankIALS(dim=6, basis=8, epochs=2, recipe=blocks).fit(ratings()).epochs_ == 2
    epochs: list[int] = []
    for wrong, message in (
        ({"recipe": blocks, "dim": 8, "basis": 6}, "Blocks of 1 x 4 do not tile"),
        ({"value_type": "float16"}, "The value type is 'float16'"),
    ):
        with pytest.raises(ConfigError, match=message):
            LowRankIALS(epochs=2, **wrong).fit(ratings(), on_epoch=lambda epoch, _: epochs.append(epoch))  # type: ignore[arg-type]
    assert epochs == []


@pytest.mark.parametrize("recipe", [None, GRADUAL, {"density": 0.25, "schedule": "dynamic"}], ids=str)
@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_a_stopped_run_goes_on_to_the_same_bytes(recipe: dict[str, Any] | None, stop_at: int, tmp_path: Path) -> None:
    train, held = holdout()
    model = LowRankIALS(dim=4, basis=8, epochs=8, recipe=recipe)
    whole, metrics = model.fit(train, validation=held).item_table_.to_dense(), model.validation_

    def stop(epoch: int, metric: float | None) -> None:
        if epoch == stop_at:
            raise StopError

    with pytest.raises(StopError):
        model.fit(train, validation=held, checkpoint=tmp_path / "checkpoint", on_epoch=stop)
    again: list[int] = []
    model.fit(
        train, validation=held, checkpoint=tmp_path / "checkpoint", on_epoch=lambda epoch, metric: again.append(epoch)
    )
    assert again[0] == stop_at + 1
    np.testing.assert_array_equal(model.item_table_.to_dense(), whole)
    assert model.validation_ == metrics

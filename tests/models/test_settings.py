"""What every model refuses before it learns, and takes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError
from recsparse.models import (
    EASE,
    IALS,
    MF,
    SLIM,
    BiasedMF,
    FeatureIALS,
    FeatureMF,
    ItemKNN,
    LowRankIALS,
    Recommender,
    SparseEASE,
)
from recsparse.models.checkpoint import training_digest
from tests.models.known import checkerboard_matrix

IN_EPOCHS = [IALS, FeatureIALS, LowRankIALS, MF, FeatureMF, BiasedMF]

WHOLE = [
    *((model, name) for model in IN_EPOCHS for name in ("dim", "epochs")),
    *((model, "patience") for model in IN_EPOCHS if model is not BiasedMF),
    *((model, "block") for model in (IALS, FeatureIALS)),
    *((model, name) for model in (MF, FeatureMF) for name in ("n_negatives", "layers")),
    (LowRankIALS, "basis"), (SLIM, "rounds"), (SparseEASE, "neighbours"), (ItemKNN, "k"),
]  # fmt: skip

NUMBERS = [
    *((model, "reg") for model in (*IN_EPOCHS, EASE, SparseEASE)),
    *((model, "init_std") for model in (IALS, FeatureIALS, MF, FeatureMF, BiasedMF)),
    *((IALS, name) for name in ("alpha0", "nu", "degree_power", "crowd")),
    *((MF, name) for name in ("learning_rate", "temperature", "negative_weight", "fold_in_alpha0", "fold_in_reg")),
    (FeatureIALS, "feature_reg"), (FeatureMF, "feature_reg"),
    *((SLIM, name) for name in ("l1", "l2", "tolerance")), *((ItemKNN, name) for name in ("shrink", "k1", "b")),
]  # fmt: skip


def refusal(model: type[Recommender], **settings: Any) -> str:
    with pytest.raises(ConfigError) as said:
        model(**settings).fit(checkerboard_matrix())
    return str(said.value)


@pytest.mark.parametrize(("model", "name"), WHOLE)
@pytest.mark.parametrize("value", [1.5, 4.0, "4", True, -1, np.float32(2)])
def test_what_must_be_whole_is_refused_otherwise(model: type[Recommender], name: str, value: Any) -> None:
    assert refusal(model, **{name: value}).startswith(f"{name} is {value!r}; it must be a whole number of at least ")


@pytest.mark.parametrize(("model", "name"), NUMBERS)
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0, "1", None, True])
def test_what_must_be_a_finite_number_is_refused_otherwise(model: type[Recommender], name: str, value: Any) -> None:
    assert refusal(model, **{name: value}).startswith(f"{name} is {value!r}; it must be a finite number ")


@pytest.mark.parametrize("model", IN_EPOCHS)
@pytest.mark.parametrize("seed", [None, -1, 0.5, np.random.default_rng(0), np.random.RandomState(0)])
def test_a_seed_is_a_whole_number(model: type[Recommender], seed: Any) -> None:
    said = refusal(model, random_state=seed)
    assert said == f"random_state is {seed!r}; it must be a whole number of at least 0."


@pytest.mark.parametrize("model", [IALS, MF, EASE])
def test_threads_are_a_whole_number(model: type[Recommender]) -> None:
    assert "n_jobs is 1.5; it must be" in refusal(model, n_jobs=1.5)


@pytest.mark.parametrize(
    ("ours", "numpys"),
    [
        (IALS(dim=8, reg=0.5), IALS(dim=np.int64(8), reg=np.float32(0.5), random_state=np.uint8(0))),
        (SLIM(l1=0.5, positive=False), SLIM(l1=np.float16(0.5), positive=np.bool_(False))),
        (MF(dim=8, epochs=2, n_negatives=2, n_jobs=1),
         MF(dim=np.int32(8), epochs=np.int64(2), n_negatives=np.int64(2), n_jobs=np.int64(1))),
    ],
)  # fmt: skip
def test_numpy_numbers_are_saved_as_what_they_are(ours: Recommender, numpys: Any, tmp_path: Path) -> None:
    X = checkerboard_matrix()
    numpys.fit(X).save(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "model.json").read_text())["params"] == ours.get_params()
    loaded = Recommender.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.scores(loaded.fold_in(X)), ours.fit(X).scores(ours.fold_in(X)))
    assert training_digest(ours.get_params(), X) == training_digest(numpys.get_params(), X)


@pytest.mark.parametrize("model", [IALS, FeatureIALS, LowRankIALS, MF, FeatureMF])
def test_other_threads_go_on_from_a_checkpoint(model: type[Any], tmp_path: Path) -> None:
    X = sp.csr_array(checkerboard_matrix())
    whole = model(dim=4, epochs=5, n_jobs=1).fit(X)

    def stop(epoch: int, _: float | None) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model(dim=4, epochs=5, n_jobs=1).fit(X, checkpoint=tmp_path / "run", on_epoch=stop)
    left: list[int] = []
    again = model(dim=4, epochs=5, n_jobs=2)
    again.fit(X, checkpoint=tmp_path / "run", on_epoch=lambda epoch, _: left.append(epoch))
    assert left in ([4, 5], [3, 4, 5])  # MF writes after it has told
    if issubclass(model, IALS):  # of MF's several threads no bytes are promised
        np.testing.assert_array_equal(again.item_table_.to_dense(), whole.item_table_.to_dense())

"""Early stopping, checkpoints and resuming, divergence and progress of iALS."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone

from recsparse.errors import ConfigError, DataError, DivergenceError
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.models import IALS, MF, FeatureIALS, LowRankIALS
from recsparse.models.alternation import Learned
from recsparse.models.least_squares import Sides
from recsparse.sparsity import Pruner, Recipe

RECIPES = {
    "gradual": {"density": 0.25, "schedule": {"kind": "gradual", "start": 0.1, "end": 0.7}},
    "tickets": {"density": 0.25, "schedule": "tickets"},
    "dynamic": {"density": 0.25, "schedule": "dynamic"},
    "soft-threshold": {"density": 0.25, "schedule": "soft-threshold"},
    "sensitivity": {"density": 0.25, "schedule": "dynamic", "allocation": "sensitivity"},
}


def blocks(seed: int = 0) -> sp.csr_array:
    """Users of three tastes, 12 of their 20 items each, and some noise."""
    rng = np.random.default_rng(seed)
    own = rng.integers(0, 3, 200)[:, None] == np.arange(60)[None, :] // 20
    return sp.csr_array(np.where(own, rng.random((200, 60)) < 0.6, rng.random((200, 60)) < 0.03).astype(np.float32))


def holdout() -> tuple[Interactions, Holdout]:
    full = Interactions.from_csr(blocks())
    keep = np.random.default_rng(1).random(full.nnz) < 0.8
    return full.select_entries(keep), Holdout(full.select_entries(keep), full.select_entries(~keep))


@pytest.mark.parametrize("model_class", [IALS, FeatureIALS])
def test_validation_keeps_the_best_epoch_and_stops(model_class: type[IALS]) -> None:
    train, held = holdout()
    settings: dict[str, Any] = {"dim": 32, "alpha0": 0.01, "reg": 1e-4, "init_std": 0.01}
    told: list[tuple[int, float | None]] = []
    model = model_class(epochs=60, patience=3, **settings).fit(
        train, validation=held, on_epoch=lambda epoch, metric: told.append((epoch, metric))
    )
    best = int(np.argmax(model.validation_)) + 1
    assert model.best_epoch_ == best
    assert model.epochs_ == best + 3 < 60
    assert told == list(enumerate(model.validation_, start=1))
    again = model_class(epochs=best, **settings).fit(train)
    np.testing.assert_array_equal(model.item_table_.to_dense(), again.item_table_.to_dense())
    np.testing.assert_array_equal(model.fold_in(train), again.fold_in(train))
    assert again.best_epoch_ == again.epochs_ == best
    assert again.validation_ == []


@pytest.mark.parametrize("model_class", [IALS, LowRankIALS, MF])
def test_validation_without_a_target_is_refused_before_the_first_epoch(model_class: type[IALS]) -> None:
    train, _ = holdout()
    nobody = Interactions.from_csr(sp.csr_array((3, 60), dtype=np.float32))
    epochs: list[int] = []
    with pytest.raises(DataError, match="The 3 validation users have no targets"):
        model_class(dim=4, epochs=2).fit(
            train, validation=Holdout(nobody, nobody), on_epoch=lambda epoch, _: epochs.append(epoch)
        )
    assert epochs == []


def test_a_recipe_trains_to_its_end_and_ends_at_its_density() -> None:
    train, held = holdout()
    model = IALS(dim=16, epochs=12, patience=1, recipe=RECIPES["gradual"]).fit(train, validation=held)
    assert model.epochs_ == model.best_epoch_ == len(model.validation_) == 12
    assert np.count_nonzero(model.item_table_.to_dense()) <= 0.25 * 60 * 16


class StopError(Exception):
    """Raised to end a run between two epochs."""


@pytest.mark.parametrize("stop_at", [1, 4, 7])
@pytest.mark.parametrize(
    "settings",
    [
        {}, {"solver": "cg"}, {"solver": "block", "block": 3},
        *({"recipe": recipe} for recipe in RECIPES.values()),
    ],
    ids=["exact", "cg", "block", *RECIPES],
)  # fmt: skip
def test_a_stopped_run_goes_on_to_the_same_bytes(settings: dict[str, Any], stop_at: int, tmp_path: Path) -> None:
    train, held = holdout()
    model = IALS(dim=8, epochs=9, patience=2, **settings)
    whole = model.fit(train, validation=held).item_table_.to_dense()
    metrics = model.validation_

    def stop(epoch: int, metric: float | None) -> None:
        if epoch == stop_at:
            raise StopError

    path = tmp_path / "checkpoint"
    try:
        model.fit(train, validation=held, checkpoint=path, on_epoch=stop)
    except StopError:
        again: list[int] = []
        model.fit(train, validation=held, checkpoint=path, on_epoch=lambda epoch, metric: again.append(epoch))
        assert again == list(range(stop_at + 1, model.epochs_ + 1))
    np.testing.assert_array_equal(model.item_table_.to_dense(), whole)
    assert model.validation_ == metrics


def _train(path: str) -> None:
    IALS(dim=16, epochs=60, solver="cg", n_jobs=2).fit(
        blocks(), checkpoint=path, on_epoch=lambda epoch, metric: time.sleep(600 if epoch == 40 else 0.02)
    )


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    child = multiprocessing.get_context("spawn").Process(target=_train, args=(str(path),))
    child.start()
    while not path.exists():
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    left: list[int] = []
    model = IALS(dim=16, epochs=60, solver="cg", n_jobs=2)
    model.fit(blocks(), checkpoint=path, on_epoch=lambda epoch, metric: left.append(epoch))
    assert 1 < left[0] <= 41
    whole = IALS(dim=16, epochs=60, solver="cg", n_jobs=2).fit(blocks())
    np.testing.assert_array_equal(model.item_table_.to_dense(), whole.item_table_.to_dense())


def test_a_checkpoint_of_other_settings_or_data_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    IALS(dim=4, epochs=2).fit(blocks(), checkpoint=path)
    with pytest.raises(ConfigError, match="other settings or other data"):
        IALS(dim=4, epochs=2, reg=0.5).fit(blocks(), checkpoint=path)
    with pytest.raises(ConfigError, match="other settings or other data"):
        IALS(dim=4, epochs=2).fit(blocks(seed=1), checkpoint=path)


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "cholesky", "dim": 64, "alpha0": 0.0, "reg": 1e-30, "nu": 0.0},
        {"solver": "cg", "init_std": 1e25},
        {"solver": "block", "init_std": 1e25},
    ],
)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid:RuntimeWarning")
def test_divergence_names_the_epoch_and_keeps_the_last_good_state(settings: dict[str, Any]) -> None:
    model = IALS(**settings)
    with pytest.raises(DivergenceError, match=r"diverged in epoch 1 \(reg .*; the model keeps epoch 0\."):
        model.fit(blocks())
    assert np.isfinite(model.item_table_.to_dense()).all()
    assert (model.epochs_, model.best_epoch_, model.validation_) == (0, 0, [])


@pytest.mark.parametrize("model_class", [IALS, FeatureIALS, LowRankIALS])
@pytest.mark.parametrize("recipe", [None, RECIPES["gradual"]])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_too_large_are_told_as_divergence(model_class: type[IALS], recipe: dict[str, Any] | None) -> None:
    known = blocks()
    known.data[::7] = 1e37
    model = model_class(dim=8, epochs=6, recipe=recipe)
    with pytest.raises(
        DivergenceError, match=r"epoch [12] \(reg 0.01, alpha0 0.1, weights 1 to 1e\+37\).* keeps epoch [01]"
    ):
        model.fit(known)
    assert np.isfinite(model.scores(model.fold_in(blocks()))).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_features_refuse_weights_whose_sum_float32_does_not_hold() -> None:
    known = blocks()
    known.data[::7] = 3e38
    with pytest.raises(DataError, match=r"sum to inf in float32, .* scale them"):
        FeatureIALS(dim=8).fit(known)


@pytest.mark.parametrize("recipe", [None, RECIPES["gradual"]])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_basis_of_nothing_is_told_as_divergence(recipe: dict[str, Any] | None) -> None:
    known = blocks()
    known.data[:] = 0
    model = LowRankIALS(dim=8, epochs=5, recipe=recipe)
    with pytest.raises(DivergenceError, match=r"diverged in epoch 2 .*weights 0 to 0\); the model keeps epoch 1\."):
        model.fit(known)
    assert (model.epochs_, model.best_epoch_) == (1, 1)
    assert len(model.recommend([0], k=3)) == 3


def spoil(monkeypatch: pytest.MonkeyPatch, model_class: type[IALS], last: int) -> None:
    """Let the epoch after number ``last`` diverge."""
    epoch = model_class._epoch

    def spoilt(model: IALS, sides: Sides, learned: Learned, pruner: Pruner | None, number: int) -> Learned:
        found = epoch(model, sides, learned, pruner, number)
        return found._replace(users=found.users * np.float32("nan")) if number == last else found

    monkeypatch.setattr(model_class, "_epoch", spoilt)


@pytest.mark.parametrize("model_class", [IALS, FeatureIALS])
def test_a_late_divergence_keeps_the_best_epoch(model_class: type[IALS], monkeypatch: pytest.MonkeyPatch) -> None:
    train, held = holdout()
    model = model_class(dim=32, epochs=60, alpha0=0.01, reg=1e-4, init_std=0.01, patience=3)
    whole = clone(model).fit(train, validation=held)
    best = whole.best_epoch_
    spoil(monkeypatch, model_class, best + 1)
    with pytest.raises(DivergenceError, match=rf"diverged in epoch {best + 2} .*; the model keeps epoch {best}\."):
        model.fit(train, validation=held)
    assert (model.epochs_, model.best_epoch_) == (best + 1, best)
    assert model.validation_ == whole.validation_[: best + 1]
    np.testing.assert_array_equal(model.item_table_.to_dense(), whole.item_table_.to_dense())


@pytest.mark.parametrize("model", [IALS(rounding="aware"), FeatureIALS(), LowRankIALS(basis=16)])
def test_a_late_divergence_of_a_recipe_keeps_what_it_had_pruned(model: IALS, monkeypatch: pytest.MonkeyPatch) -> None:
    model.set_params(dim=16, epochs=12, recipe=RECIPES["gradual"], value_type="int4")
    spoil(monkeypatch, type(model), 8)
    with pytest.raises(DivergenceError, match="keeps epoch 8"):
        model.fit(blocks())
    density = Recipe.parse(RECIPES["gradual"]).schedule.density(8 / 12, 0.25)
    table = model.item_table_.sparse if isinstance(model, LowRankIALS) else model.item_table_
    assert 0 < np.count_nonzero(table.to_dense()) <= round(density * 60 * 16)


@pytest.mark.parametrize(
    ("criterion", "allocation"),
    [("magnitude", "global"), ("frequency", "global"), ("loss-increase", "global"), ("magnitude", "sensitivity")],
)
@pytest.mark.parametrize("schedule", ["gradual", "dynamic"])
def test_a_budget_in_bytes_holds_after_exchanges_and_choices_among_the_living(
    criterion: str, allocation: str, schedule: str
) -> None:
    rng = np.random.default_rng(0)
    share = rng.zipf(1.5, 200).clip(1, 50) / 60
    known = sp.csr_array((rng.random((300, 200)) < share).astype(np.float32))
    recipe = {"bytes": 1500, "criterion": criterion, "schedule": schedule, "allocation": allocation}
    model = IALS(dim=16, epochs=8, recipe=recipe).fit(known)
    assert 1400 < model.item_table_.nbytes <= 1500

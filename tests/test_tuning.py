"""The search for settings: what it finds, what it does not see, and how it goes on."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.models import IALS, Recommender
from recsparse.pipeline.rows import make
from recsparse.tuning import BEST, TRIALS, Tuned, tune

pytest.importorskip("optuna")


def holdout() -> tuple[Interactions, Holdout]:
    rng = np.random.default_rng(0)
    own = rng.integers(0, 3, 150)[:, None] == np.arange(60)[None, :] // 20
    full = Interactions.from_csr(
        sp.csr_array(np.where(own, rng.random((150, 60)) < 0.5, rng.random((150, 60)) < 0.05).astype(np.float32))
    )
    keep = rng.random(full.nnz) < 0.7
    return full.select_entries(keep), Holdout(full.select_entries(keep), full.select_entries(~keep))


TRAIN, VALIDATION = holdout()
FIXED = {"dim": 4, "epochs": 4, "n_jobs": 1}


def search(directory: Path, trials: int, **more: Any) -> Tuned:
    return tune("ials", TRAIN, VALIDATION, directory, trials=trials, fixed=FIXED, **more)


def test_the_best_beats_the_defaults_and_can_be_made_again(tmp_path: Path) -> None:
    told: list[Tuned] = []
    best = search(tmp_path, 6, on_trial=told.append)
    assert (best.trials, told[0].best_trial, len(told)) == (6, 1, 6)
    assert best.value >= told[0].value
    assert [each.value for each in told] == sorted(each.value for each in told)
    assert Tuned(**json.loads((tmp_path / BEST).read_text())) == best
    model = make("ials", best.params)
    assert model.get_params()["dim"] == 4
    from recsparse.evaluation import per_user, rank_targets

    ranking = rank_targets(model.fit(TRAIN), VALIDATION.history, VALIDATION.target)
    assert np.nanmean(per_user(ranking, "ndcg@20")) == pytest.approx(best.value, abs=1e-12)


def test_a_search_in_pieces_equals_one_in_a_go(tmp_path: Path) -> None:
    whole = search(tmp_path / "whole", 12)
    for trials in (1, 4, 12):
        pieces = search(tmp_path / "pieces", trials)
        assert pieces.trials == trials
    assert pieces == whole
    assert search(tmp_path / "pieces", 3) == whole  # there are enough already
    other = tmp_path / "other"
    assert search(other, 3, seed=1).params != search(tmp_path / "same", 3, seed=0).params


def test_bad_trials_are_ended_early(tmp_path: Path) -> None:
    tuned = tune(
        "ials", TRAIN, VALIDATION, tmp_path, trials=12, fixed={"dim": 4, "epochs": 8, "n_jobs": 1},
        space={"init_std": {"low": 1e-6, "high": 1.0, "log": True}},
    )  # fmt: skip
    assert 0 < tuned.pruned < 12


def test_a_trial_that_diverges_does_not_end_the_search(tmp_path: Path) -> None:
    fixed = {"dim": 80, "epochs": 2, "alpha0": 0.0, "nu": 0.0}
    tuned = tune("ials", TRAIN, VALIDATION, tmp_path, trials=5, fixed=fixed, space={"reg": [1e-30, 0.1]})
    assert tuned.pruned > 0
    assert tuned.params["reg"] == 0.1
    with pytest.raises(DataError, match=r"None of 2 trials gave a result.*iALS diverged"):
        tune(
            "ials", TRAIN, VALIDATION, tmp_path / "none", trials=2, fixed=fixed,
            space={"reg": {"low": 1e-30, "high": 1e-29}},
        )  # fmt: skip


def test_recipes_and_choices_can_be_searched(tmp_path: Path) -> None:
    tuned = tune(
        "ials", TRAIN, VALIDATION, tmp_path, trials=4, fixed={**FIXED, "recipe": {"schedule": "oneshot"}},
        space={"recipe.density": [0.25, 0.5], "reg": None, "nu": None, "alpha0": None},
    )  # fmt: skip
    assert tuned.params["recipe"]["density"] in (0.25, 0.5)
    assert tuned.params["recipe"]["schedule"] == "oneshot"


def test_a_dotted_name_fixes_a_setting_within_another(tmp_path: Path) -> None:
    recipe = {"schedule": "oneshot"}
    fixed = FIXED | {"recipe": recipe, "recipe.density": 0.25}
    tuned = tune("ials", TRAIN, VALIDATION, tmp_path, trials=1, fixed=fixed)
    assert tuned.params["recipe"] == {"schedule": "oneshot", "density": 0.25}
    assert recipe == {"schedule": "oneshot"}
    for again in (fixed, {"recipe": {"density": 0.5}}):
        with pytest.raises(ConfigError, match=r"recipe\.density is both fixed and searched"):
            tune("ials", TRAIN, VALIDATION, tmp_path, trials=1, fixed=again, space={"recipe.density": [0.25, 0.5]})


def test_a_budget_too_small_is_a_bad_trial(tmp_path: Path) -> None:
    fixed = {**FIXED, "recipe": {"schedule": "oneshot"}}
    tuned = tune("ials", TRAIN, VALIDATION, tmp_path, trials=5, fixed=fixed, space={"recipe.bytes": [20, 600]})
    assert (tuned.trials, tuned.params["recipe"]["bytes"]) == (5, 600)
    assert 0 < tuned.pruned < 5
    with pytest.raises(DataError, match=r"None of 2 trials gave a result.*A budget of 20 bytes is too small"):
        tune("ials", TRAIN, VALIDATION, tmp_path / "none", trials=2, fixed=fixed, space={"recipe.bytes": [20]})


def test_models_without_epochs_are_searched_too(tmp_path: Path) -> None:
    tuned = tune("item-knn", TRAIN, VALIDATION, tmp_path, trials=5, metric="recall@10")
    assert set(tuned.params) == {"k", "weighting", "shrink"}
    assert isinstance(tuned.params["k"], int)


def test_low_rank_is_searched_by_its_epochs(tmp_path: Path) -> None:
    tuned = tune("low-rank-ials", TRAIN, VALIDATION, tmp_path, trials=2, fixed={"dim": 4, "basis": 8, "epochs": 5})
    assert 1 <= tuned.params["epochs"] <= 5


def test_a_search_that_nothing_can_be_measured_in_ends(tmp_path: Path) -> None:
    nobody = Interactions.from_csr(sp.csr_array((3, 60), dtype=np.float32))
    with pytest.raises(DataError, match="The 3 validation users have no targets"):
        tune("ease", TRAIN, Holdout(nobody, nobody), tmp_path, trials=3)
    assert not any(tmp_path.iterdir())
    all_others = Interactions.from_csr(sp.csr_array(1 - TRAIN.matrix.toarray()))  # nothing to be ranked above
    with pytest.raises(DataError, match=r"None of 3 trials.*No validation user has a value of auc"):
        tune("ease", TRAIN, Holdout(TRAIN, all_others), tmp_path, trials=3, metric="auc")


def _search(directory: str) -> None:
    search(Path(directory), 60, on_trial=lambda best: time.sleep(600 if best.trials == 9 else 0))


@pytest.mark.slow
def test_a_killed_search_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=_search, args=(str(tmp_path / "killed"),))
    child.start()
    while not (tmp_path / "killed" / BEST).exists():
        time.sleep(0.01)
    time.sleep(0.3)
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    told: list[Tuned] = []
    search(tmp_path / "killed", 12, on_trial=told.append)
    assert 1 < told[0].trials <= 10
    assert asdict(told[-1]) == asdict(search(tmp_path / "whole", 12))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": {"reg": {"low": 1.0, "high": 0.5}}}, "the range of reg: .*must be below high"),
        ({"space": {"reg": {"low": 0.0, "high": 0.5, "log": True}}}, "above 0 where log"),
        ({"space": {"reg": {"from": 0.0}}}, "the range of reg: from"),
        ({"space": {"reg": []}}, r"The choices of reg are \[\]"),
        ({"space": {"colour": [1, 2]}}, "colour"),
        ({"space": {"dim": [1, 2]}}, "dim is both fixed and searched"),
        ({"space": dict.fromkeys(IALS.search_space)}, "ials declares nothing to search"),
        ({"metric": "quality@5"}, "quality"),
    ],
)
def test_impossible_searches_are_refused(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        search(tmp_path, 1, **arguments)


def test_a_directory_of_another_search_is_refused(tmp_path: Path) -> None:
    search(tmp_path, 1)
    with pytest.raises(ConfigError, match="is a search of other metric"):
        search(tmp_path, 2, metric="recall@20")
    with pytest.raises(ConfigError, match="is a search of other data"):
        tune("ials", VALIDATION.target, VALIDATION, tmp_path, trials=2, fixed=FIXED)
    (tmp_path / TRIALS).write_bytes(b"not a database" * 100)
    with pytest.raises(DataError, match=r"trials\.sqlite3 cannot be read"):
        search(tmp_path, 2)


def test_defaults_lie_in_their_ranges() -> None:
    for kind in ("ials", "feature-ials", "low-rank-ials", "ease", "sparse-ease", "slim", "item-knn", "mf"):
        model = Recommender.of_kind(kind)
        own = model().get_params()
        for name, each in model.search_space.items():
            assert own[name] in each if isinstance(each, list) else name in own
    assert IALS.search_space.keys() < Recommender.of_kind("feature-ials").search_space.keys()

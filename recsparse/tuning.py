"""Search for a model's best settings on the validation users, with Optuna."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from recsparse.errors import BudgetError, ConfigError, DataError
from recsparse.files import atomic_file
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.models import Recommender
from recsparse.models.base import trains_in_epochs
from recsparse.models.checkpoint import training_digest
from recsparse.pipeline.rows import make, with_settings
from recsparse.validation import validate

TRIALS = "trials.sqlite3"
BEST = "best.json"
_ABOUT = "about"


class Range(BaseModel):
    """A range of a setting, its ends included; of whole numbers if both ends are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"low ({self.low}) must be below high ({self.high}), and above 0 where log is true")
        return self


Search = dict[str, Range | list[Any]]


@dataclass(frozen=True)
class Tuned:
    """What a search has found so far.

    Attributes:
        kind: of the model.
        params: its best settings, those that were fixed included; epochs are those of the best epoch.
        metric: what was measured.
        value: its mean over the validation users.
        trials: finished ones, of which
        pruned: were ended early, diverged, or had a budget too small for their table.
        best_trial: the number of the best, from 1.
    """

    kind: str
    params: dict[str, Any]
    metric: str
    value: float
    trials: int
    pruned: int
    best_trial: int


OnTrial = Callable[[Tuned], None]


def tune(
    kind: str,
    train: Interactions,
    validation: Holdout,
    directory: str | Path,
    *,
    trials: int = 50,
    fixed: dict[str, Any] | None = None,
    space: dict[str, Any] | None = None,
    metric: str = "ndcg@20",
    seed: int = 0,
    on_trial: OnTrial | None = None,
) -> Tuned:
    """Search by trees of Parzen estimators (Bergstra et al. 2011); test data is never seen.

    The first trial takes the model's defaults. A model that reports its epochs is ended early where it is below the
    median of the trials before it at the same epoch. What a trial tries depends only on the seed and on the trials
    before it, so that a search that was killed goes on as if nothing had happened.

    Args:
        kind: of the model.
        train: to learn from.
        validation: to measure on.
        directory: of ``trials.sqlite3``, from which a search goes on, and ``best.json``.
        trials: how many there are to be, those of earlier runs included.
        fixed: settings that are not searched; a dotted name reaches into a nested one.
        space: setting -> choices or range (see :attr:`Recommender.search_space`), besides or instead of the model's
            own; None leaves one out.
        metric: see :mod:`recsparse.evaluation.metrics`.
        seed: of the search.
        on_trial: told of the best after each trial.

    Raises:
        ConfigError: Optuna is missing, there is nothing to search, or the directory is of another search.
        DataError: no trial gave a result, or validation has no targets.

    Example:
        >>> import tempfile
        >>> import scipy.sparse as sp
        >>> data = Interactions.from_csr(sp.csr_array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 0]]))
        >>> target = Interactions.from_csr(sp.csr_array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]))
        >>> tuned = tune("ease", data, Holdout(data, target), tempfile.mkdtemp(), trials=3, metric="ndcg@2")
        >>> tuned.trials, tuned.value
        (3, 1.0)
    """
    validation.check_targets()
    fixed = with_settings({}, deepcopy(fixed or {}))
    search = _search(Recommender.of_kind(kind), fixed, space or {})
    make(kind, with_settings(fixed, {name: _first(each) for name, each in search.items()}), "tune")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    about = {"kind": kind, "fixed": fixed, "metric": metric, "seed": seed, "space": _plain(search)}
    about["data"] = training_digest({}, train.matrix) + training_digest({}, validation.target.matrix)
    with _optuna() as optuna:
        study = _study(optuna, directory / TRIALS, about)
        while (number := len(_finished(optuna, study))) < trials:
            if number == 0 and not study.get_trials(states=[optuna.trial.TrialState.WAITING]):
                study.enqueue_trial(_defaults(kind, search))
            state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            study.sampler = optuna.samplers.TPESampler(seed=state)
            trial = study.ask()
            settings = with_settings(fixed, {name: _suggest(trial, name, each) for name, each in search.items()})
            try:
                value = _try(optuna, trial, kind, settings, train, validation, metric)
            except optuna.TrialPruned:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            except (DataError, BudgetError) as error:
                trial.set_user_attr("error", str(error))
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, value)
            best = _best(optuna, study, about)
            if best is not None:
                with atomic_file(directory / BEST) as partial:
                    partial.write_text(json.dumps(asdict(best), indent=1) + "\n")
                if on_trial is not None:
                    on_trial(best)
        best = _best(optuna, study, about)
        if best is None:
            reasons = [trial.user_attrs.get("error", "pruned") for trial in study.trials]
            raise DataError(
                f"None of {trials} trials gave a result; the last: {reasons[-1] if reasons else 'none ran'}"
            )
        return best


def _try(
    optuna: ModuleType, trial: Any, kind: str, settings: dict[str, Any], train: Interactions, validation: Holdout,
    metric: str,
) -> float:  # fmt: skip
    from recsparse.evaluation import per_user, rank_targets  # noqa: PLC0415 (evaluation needs models)

    model = make(kind, settings, "tune")

    def report(epoch: int, value: float | None) -> None:
        if value is not None:
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

    if trains_in_epochs(model):
        if "metric" in model.get_params():
            model.set_params(metric=metric)
        model.fit(train, validation=validation, on_epoch=report)  # type: ignore[call-arg]
        if "epochs" in settings or "epochs" in model.get_params():
            settings["epochs"] = getattr(model, "best_epoch_", model.get_params()["epochs"])
    else:
        model.fit(train)
    trial.set_user_attr("params", json.dumps(settings))
    values = per_user(rank_targets(model, validation.history, validation.target), metric)
    if np.isnan(values).all():  # told as a value, it would not count as a trial
        raise DataError(f"No validation user has a value of {metric}; take another metric.")
    return float(np.nanmean(values))


def _search(model: type[Recommender], fixed: dict[str, Any], space: dict[str, Any]) -> Search:
    declared = {name: each for name, each in model.search_space.items() if name not in fixed} | space
    if twice := sorted(name for name in space if _holds(fixed, name)):
        raise ConfigError(f"{twice[0]} is both fixed and searched; choose one.")
    search: Search = {}
    for name, each in declared.items():
        if isinstance(each, list):
            if not each or any(isinstance(choice, list | dict) for choice in each):
                raise ConfigError(
                    f"The choices of {name} are {each!r}; give a list of numbers, texts or true and false."
                )
            search[name] = each
        elif each is not None:
            search[name] = validate(Range, each, f"the range of {name}")
    if not search:
        raise ConfigError(f"{model.kind} declares nothing to search; give a range, for example reg = [0.1, 1.0].")
    return search


def _holds(fixed: Any, name: str) -> bool:
    """Whether a setting, or one that a dotted name reaches, is fixed."""
    for part in name.split("."):
        if not isinstance(fixed, dict) or part not in fixed:
            return False
        fixed = fixed[part]
    return True


def _plain(search: Search) -> dict[str, Any]:
    return {name: each if isinstance(each, list) else each.model_dump() for name, each in search.items()}


def _first(each: Range | list[Any]) -> Any:
    return each[0] if isinstance(each, list) else each.low


def _defaults(kind: str, search: Search) -> dict[str, Any]:
    """The model's own settings, as far as they are among those searched."""
    own = Recommender.of_kind(kind)().get_params()
    return {
        name: own[name]
        for name, each in search.items()
        if name in own and (own[name] in each if isinstance(each, list) else each.low <= own[name] <= each.high)
    }


def _suggest(trial: Any, name: str, each: Range | list[Any]) -> Any:
    if isinstance(each, list):
        return trial.suggest_categorical(name, each)
    if isinstance(each.low, int) and isinstance(each.high, int):
        return trial.suggest_int(name, each.low, each.high, log=each.log)
    return trial.suggest_float(name, each.low, each.high, log=each.log)


def _study(optuna: ModuleType, path: Path, about: dict[str, Any]) -> Any:
    """Open the study at ``path``, a killed run's trial put aside."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 (comes with Optuna)

    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path}", study_name="recsparse", direction="maximize", load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        )  # fmt: skip
        before = study.user_attrs.get(_ABOUT)
    except SQLAlchemyError as error:
        raise DataError(f"{path} cannot be read ({error.__cause__ or error}); delete it to start again.") from error
    text = json.dumps(about, sort_keys=True)
    if before is None:
        study.set_user_attr(_ABOUT, text)
    elif before != text:
        old = json.loads(before)
        other = [name for name in about if json.loads(json.dumps(about[name])) != old.get(name)]
        raise ConfigError(f"{path} is a search of other {' and '.join(other)}; name another directory or delete it.")
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _finished(optuna: ModuleType, study: Any) -> list[Any]:
    state = optuna.trial.TrialState
    return list(study.get_trials(deepcopy=False, states=[state.COMPLETE, state.PRUNED]))


def _best(optuna: ModuleType, study: Any, about: dict[str, Any]) -> Tuned | None:
    finished = _finished(optuna, study)
    complete = [trial for trial in finished if trial.state == optuna.trial.TrialState.COMPLETE]
    if not complete:
        return None
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    params = json.loads(best.user_attrs["params"])
    number = [trial.number for trial in finished].index(best.number) + 1
    pruned = len(finished) - len(complete)
    return Tuned(about["kind"], params, about["metric"], best.value, len(finished), pruned, number)


@contextmanager
def _optuna() -> Iterator[ModuleType]:
    """Optuna, quiet while it is ours."""
    try:
        import optuna  # noqa: PLC0415 (heavy, and an extra)
    except ImportError as error:
        raise ConfigError("The search for settings needs Optuna: pip install 'recsparse[tune]'.") from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)

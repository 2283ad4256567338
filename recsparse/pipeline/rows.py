"""The rows of a report that a pipeline file asks for."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from itertools import product
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from recsparse.config import ModelSpec, RunConfig
from recsparse.distributed import Budget
from recsparse.errors import ConfigError
from recsparse.models import Recommender
from recsparse.models.factors import FactorModel
from recsparse.pipeline.ranks import check_sharded
from recsparse.report.results import Family
from recsparse.report.words import slug
from recsparse.sparsity import Recipe
from recsparse.validation import validate

_NAMES = {
    "popularity": "Popularity", "ease": "EASE", "slim": "SLIM", "item-knn": "Item-kNN", "ials": "iALS", "mf": "MF",
    "sparse-ease": "Sparse EASE", "feature-ials": "Feature iALS", "feature-mf": "Feature MF",
    "low-rank-ials": "Low-rank iALS", "biased-mf": "Biased MF", "random": "Random", "content-knn": "Content-kNN",
}  # fmt: skip


@dataclass(frozen=True)
class Training:
    """One model to tune and fit, and the value types its table is stored in.

    Attributes:
        kind: the model's kind.
        params: its settings but those tuned.
        candidates: settings to choose from on the validation users; one empty dict where nothing is tuned.
        value_types: one row of the report each.
        where: of the pipeline file, for errors.
        ranks: processes that its tables are sharded over, if they are.
    """

    kind: str
    params: dict[str, Any]
    candidates: tuple[dict[str, Any], ...]
    value_types: tuple[str, ...]
    where: str
    ranks: int | None = None

    @property
    def label(self) -> str:
        """What the trained table is called: model, dim, and what of it is kept."""
        words = [*(["Sharded"] if self.ranks else []), _NAMES[self.kind]]
        if "dim" in self.params:
            words.append(str(self.params["dim"]))
        if budget := self.budget:
            words += _budget_words(budget)
        if recipe := self.recipe:
            words += _words(recipe, self.params.get("basis", self.params.get("dim", 1)))
        return " ".join(words)

    @property
    def recipe(self) -> Recipe | None:
        """How the table becomes sparse."""
        recipe = (self.params.get("items", {}) if self.ranks else self.params).get("recipe")
        return None if recipe is None else Recipe.parse(recipe)

    @property
    def budget(self) -> Budget | None:
        """The rows that the table of a sharded training must fit in."""
        budget = self.params.get("items", {}).get("budget") if self.ranks else None
        return None if budget is None else validate(Budget, budget, f"{self.where}.params.items.budget")

    def label_of(self, value_type: str) -> str:
        """The row's name."""
        return self.label if value_type == "fp32" else f"{self.label} {value_type}"

    def slug_of(self, value_type: str) -> str:
        """The name of the row's directories."""
        return slug(self.label_of(value_type))

    def family_of(self, value_type: str) -> Family:
        """What the row is, for the report's colours."""
        if self.kind == "popularity":
            return "popularity"
        if self.kind == "random":
            return "other"
        if self.kind in ("ease", "slim", "item-knn", "sparse-ease", "content-knn"):
            return "item-item"
        if self.kind == "low-rank-ials":
            return "low-rank"
        if recipe := self.recipe:
            return recipe.granularity.kind
        return "row" if self.budget else "dense" if value_type == "fp32" else "quantised"


def _words(recipe: Recipe, dim: int) -> Iterator[str]:
    """What a recipe keeps, then what of it is not the default."""
    rows = recipe.granularity.kind == "row"
    yield "rows" if rows else recipe.granularity.kind
    if recipe.density is None:
        yield f"{recipe.bytes:,} B"
    else:
        yield f"{recipe.density:.0%}" if rows else f"{recipe.density * dim:g}"
    for part, usual in ((recipe.schedule, "gradual"), (recipe.criterion, "magnitude"), (recipe.allocation, "global")):
        if part.kind != usual:
            yield part.kind


def _budget_words(budget: Budget) -> Iterator[str]:
    """How many rows there are, then what is not the default."""
    yield f"rows {budget.rows:,}"
    for value, usual in ((budget.utility, "frequency"), (budget.fallback, "mean")):
        if value != usual:
            yield value


def trainings(config: RunConfig, where: str = "") -> list[Training]:
    """Every training of a pipeline file, in its order.

    Raises:
        ConfigError: a model does not have a setting, two rows would have one name, or no model has a table.
    """
    found = [each for number, spec in enumerate(config.models) for each in _of(spec, f"{where}models.{number}")]
    labels = [training.label_of(each) for training in found for each in training.value_types]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(
            f"{where}models: two rows would be called {twice[0]!r}; "
            "let them differ in kind, dim, recipe, budget or value type."
        )
    if not any(issubclass(Recommender.of_kind(training.kind), FactorModel) for training in found):
        raise ConfigError(f"{where}models: none of them has an embedding table; add one that has, for example ials.")
    return found


def make(kind: str, params: dict[str, Any], where: str = "params") -> Recommender:
    """Make an unfitted model by its kind.

    Raises:
        ConfigError: the model has no such setting, or it is of the wrong type.
    """
    model = Recommender.of_kind(kind)
    settings = validate(_settings_of(model), params, where)
    made: Recommender = model(**{name: getattr(settings, name) for name in params})
    return made


def _settings_of(model: type[Recommender]) -> type[BaseModel]:
    """The types of a model's settings, as its constructor declares them; a recipe is checked where it is parsed."""
    fields: dict[str, Any] = {}
    for name, parameter in signature(model).parameters.items():
        fields[name] = (Any if name in ("recipe", "user_recipe") else parameter.annotation, parameter.default)
    return create_model("Settings", __config__=ConfigDict(extra="forbid", strict=True), **fields)


def with_settings(params: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """``params`` with more settings; a dotted name reaches into a nested one.

    >>> with_settings({"recipe": {"granularity": "row"}}, {"recipe.density": 0.5})
    {'recipe': {'granularity': 'row', 'density': 0.5}}
    """
    result = deepcopy(params)
    for name, value in settings.items():
        *outer, last = name.split(".")
        place = result
        for part in outer:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{name}: {part} is {place!r}, which has no {last}; make it a table of settings.")
        place[last] = value
    return result


def _of(spec: ModelSpec, where: str) -> Iterator[Training]:
    candidates = tuple(_combinations(spec.tune))
    for settings in _combinations(spec.sweep):
        params = with_settings(spec.params, settings)
        for candidate in candidates:
            tried = with_settings(params, candidate)
            if spec.ranks:
                check_sharded(tried, f"{where}.params")
            model = make(spec.kind, {} if spec.ranks else tried, f"{where}.params")
            for recipe in (tried.get("recipe"), tried.get("user_recipe")):
                if recipe and recipe != "shared":
                    _parse(recipe, f"{where}.params.")
            if "value_type" in params or (spec.value_types != ["fp32"] and "value_type" not in model.get_params()):
                raise ConfigError(f"{where}.value_types: set it there, and only for models that have a packed table.")
        if not spec.ranks and "bytes" in (params.get("recipe") or {}):  # what they buy hangs on the value type
            for value_type in spec.value_types:
                yield Training(spec.kind, params | {"value_type": value_type}, candidates, (value_type,), where)
        else:
            yield Training(spec.kind, params, candidates, tuple(spec.value_types), where, spec.ranks)


def _parse(recipe: Any, where: str) -> None:
    try:
        Recipe.parse(recipe)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from error


def _combinations(choices: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in product(*choices.values()):
        yield dict(zip(choices, values, strict=True))

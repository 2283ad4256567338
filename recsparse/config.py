"""What a pipeline file says: data, split, models and what to measure, as one TOML file checked before anything runs."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from recsparse.errors import ConfigError
from recsparse.evaluation import DEFAULT_METRICS
from recsparse.evaluation.metrics import check_metrics
from recsparse.interactions.cards import all_cards, list_cards, load_card
from recsparse.interactions.cleaning import Cleaning
from recsparse.interactions.source import Source, Spec
from recsparse.interactions.split import check_protocol
from recsparse.models import Recommender
from recsparse.validation import validate

PUBLISHED = "published"
"""Beside the protocols: the parts that a public dataset was published with."""
ValueType = Literal["fp32", "fp16", "bf16", "int8", "int6", "int5", "int4", "int3", "int2"]


def _known_kind(kind: str) -> str:
    Recommender.of_kind(kind)
    return kind


class Data(Spec):
    """What to build the matrix from."""

    source: str | Source
    """A dataset card's name, a path, or a table that describes the files."""
    from_path: Path | None = None
    """The card's files, where they are on this machine already."""
    cleaning: Cleaning | None = None
    """None is what the card says, else only repeated pairs are merged."""
    memory_limit: str | None = None
    """DuckDB's limit, for example 4GB."""

    @property
    def card(self) -> str | None:
        """The card that ``source`` names; what is no card's name is a path."""
        source = self.source
        if isinstance(source, Source) or Path(source).exists() or source.partition(":")[0] not in list_cards():
            return None
        return source


class SplitBy(Spec):
    """How to cut it; ``options`` are those of the protocol."""

    protocol: str = "strong"
    """One of the protocols; or ``published``, the parts that a card's dataset was published with. Where these lack a
    validation part, the share ``validation`` (0.1) of each user's training interactions is drawn for it."""
    seed: int = 0
    options: dict[str, Any] = {}

    @field_validator("protocol")
    @classmethod
    def _known(cls, protocol: str) -> str:
        if protocol != PUBLISHED:
            check_protocol(protocol)
        return protocol

    @field_validator("options")
    @classmethod
    def _its_own(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if info.data.get("protocol") == PUBLISHED:
            if unknown := sorted(options.keys() - {"validation"}):
                raise ValueError(f"the protocol published has no option {unknown[0]!r}; it has: validation")
        elif "protocol" in info.data:
            check_protocol(info.data["protocol"], options)
        return options


class ModelSpec(Spec):
    """A model and the rows of the report it gives: one for each combination of ``sweep`` and value type.

    Names in ``sweep`` and ``tune`` may reach into a recipe: ``recipe.density``.
    """

    kind: Annotated[str, AfterValidator(_known_kind)]
    params: dict[str, Any] = {}
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Settings that make rows of their own: each value, and each combination, is one."""
    tune: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Settings chosen for each row by the headline metric on the validation users."""
    value_types: Annotated[list[ValueType], Field(min_length=1)] = ["fp32"]
    """How the item table's values are stored: one training, a row for each."""
    ranks: PositiveInt | None = None
    """Train ``mf`` with its tables sharded over so many processes here (extra ``torchrec``); ``params`` are then those
    of :class:`recsparse.distributed.TrainConfig`."""

    @field_validator("ranks")
    @classmethod
    def _of_mf(cls, ranks: int | None, info: ValidationInfo) -> int | None:
        if ranks is not None and info.data.get("kind") != "mf":
            raise ValueError("only mf is trained sharded")
        return ranks


class Evaluation(Spec):
    """What to measure on the test users."""

    metrics: Annotated[tuple[str, ...], AfterValidator(check_metrics)] = DEFAULT_METRICS
    headline: Annotated[str, Field(validate_default=True)] = "ndcg@20"
    """The metric that settings, and the table to ship, are chosen by."""
    max_loss: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """The relative loss of the headline metric that is acceptable for a smaller table."""
    few_shot: list[NonNegativeInt] = [1, 2, 3, 5, 10]
    """History lengths of the few-shot curve; empty for none."""
    warm_up: list[NonNegativeInt] = []
    """Of the protocol ``cold-items``: how many interactions each new item has gathered; each fits every model anew."""
    effects: bool = True
    """Whether to measure what mean accuracy does not say: head and tail, diversity, cold items, latency, the claims."""
    noise: list[Annotated[float, Field(gt=0, lt=1)]] = []
    """Shares of made-up interactions for the robustness experiment, which refits the table to ship and the dense one
    three times each for every share; empty for none."""
    seed: int = 0
    """Of the bootstrap."""

    @field_validator("headline")
    @classmethod
    def _measured(cls, headline: str, info: ValidationInfo) -> str:
        if headline not in info.data.get("metrics", (headline,)):
            raise ValueError(f"it must be one of the metrics, {', '.join(info.data['metrics'])}")
        return headline


class Recommendations(Spec):
    """What to recommend with the table that ships."""

    top: PositiveInt = 20


class Tracking(Spec):
    """Where every row of the results is kept as well, for those who have a place for them (extra ``tracking``)."""

    mlflow: str | None = None
    """The store: ``sqlite:///mlflow.db``, or a server's address; the run's name is the experiment's."""
    tensorboard: Path | None = None
    """A directory of event files, a directory a row below it."""


class RunConfig(Spec):
    """A pipeline file.

    Example:
        >>> document = {"name": "mine", "data": {"source": "r.csv"}, "models": [{"kind": "ials"}]}
        >>> config = RunConfig.model_validate(document)
        >>> str(config.directory), config.split.protocol
        ('runs/mine', 'strong')
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Also the run's directory below ``runs/``."""
    data: Data
    split: SplitBy = SplitBy()
    models: Annotated[list[ModelSpec], Field(min_length=1)]
    evaluation: Evaluation = Evaluation()
    recommendations: Recommendations = Recommendations()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _new_items_to_warm_up(self) -> Self:
        if self.evaluation.warm_up and self.split.protocol != "cold-items":
            raise ValueError(
                f"evaluation.warm_up needs the protocol cold-items, not {self.split.protocol}: no item is new here"
            )
        return self

    @model_validator(mode="after")
    def _refits_here(self) -> Self:
        if any(model.ranks for model in self.models) and (self.evaluation.noise or self.evaluation.warm_up):
            raise ValueError("evaluation.noise and evaluation.warm_up fit models again, which is not done on ranks")
        return self

    @model_validator(mode="after")
    def _parts_to_publish(self) -> Self:
        if self.split.protocol != PUBLISHED:
            return self
        if self.data.card is None or not load_card(self.data.card).has_parts:
            known = ", ".join(card.name for card in all_cards() if card.has_parts)
            raise ValueError(f"split.protocol published needs a data.source that was published with a split: {known}")
        if self.data.cleaning is not None:
            raise ValueError("data.cleaning would change the published parts; leave it out, or cut by another protocol")
        return self

    @property
    def directory(self) -> Path:
        """Where the run is kept."""
        return Path("runs") / self.name


def read_config(path: Path) -> RunConfig:
    """Read a pipeline file.

    Raises:
        ConfigError: it cannot be read, is not TOML, or a key or value in it is wrong; the message names which.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error
    return validate(RunConfig, document, str(path))

"""What a run found, as one JSON document: the only thing a report is made from.

Every figure of a report stands here, so that it can be checked, compared and drawn again. Sizes are bytes, times
seconds; a metric is a mean over users with its interval and the number of users it rests on.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from recsparse.errors import FormatError
from recsparse.evaluation.intervals import Summary
from recsparse.files import atomic_file

FORMAT_VERSION: Literal[1] = 1

Family = Literal[
    "popularity", "item-item", "dense", "quantised", "element", "block", "row", "low-rank", "dynamic", "other"
]
"""What a row is, for colour and legend: not a table at all (popularity; EASE, item-kNN: item-item), a dense fp32 table,
a dense table of fewer bits, or a sparse table by what was dropped (of any value type)."""

Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: value if math.isfinite(value) else None, when_used="json"),
]
"""A float; JSON has no NaN, so there it is null."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Part):
    """A mean over users with its interval."""

    mean: Number
    low: Number = math.nan
    high: Number = math.nan
    users: int = Field(ge=0)
    without: int = Field(default=0, ge=0, description="users without a value, left out of the mean")

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Take over what evaluation measured."""
        return cls.model_validate(summary.to_dict())


class Dataset(_Part):
    """What was trained on."""

    name: str
    title: str = ""
    citation: str = ""
    licence: str = ""
    users: int
    items: int
    interactions: int


class SplitInfo(_Part):
    """How training, validation and test were made."""

    protocol: str
    description: str = Field(description="one sentence for a reader: who is held out, what is known of them")
    train_users: int
    validation_users: int = 0
    test_users: int
    seed: int | None = None
    digest: str = Field(default="", description="of the test users, histories and targets")
    warnings: list[str] = Field(default=[], description="leakage and other findings of the split")


class FewShotPoint(_Part):
    """Quality with so many history items."""

    history: int = Field(ge=0)
    users_with_as_many: int | None = Field(default=None, description="users who had so many; the rest have fewer")
    metrics: dict[str, Measured]
    fold_in: dict[str, Measured] = Field(
        default={}, description="by the history alone, of models that know users' features"
    )


class WarmUpPoint(_Part):
    """Quality for new items once each has gathered so many interactions."""

    gathered: int = Field(ge=0)
    metrics: dict[str, Measured]


class Latency(_Part):
    """Milliseconds of one call, half of the calls and all but one in a hundred."""

    p50_ms: Number
    p99_ms: Number
    batch: int = 1
    calls: int = 0


class Cost(_Part):
    """What a representation costs besides its bytes; a field nobody measured is None."""

    fit_seconds: float | None = None
    peak_memory_bytes: int | None = Field(default=None, description="of the training process")
    convert_seconds: float | None = Field(default=None, description="trained array to packed table")
    load_seconds: float | None = None
    file_bytes: int | None = None
    lookup: Latency | None = None
    top_k: Latency | None = None


class Row(_Part):
    """One representation: what it is, what it weighs, how good it is."""

    label: str
    family: Family
    model: str = Field(description="iALS, EASE, ...")
    params: dict[str, Any] = {}
    value_type: str = "fp32"
    layout: str = ""
    dim: int | None = None
    density: float | None = Field(default=None, ge=0, le=1, description="share of the dense table's values kept")
    nonzeros_per_item: float | None = None
    bytes_total: int | None = Field(default=None, ge=0, description="the packed item table; None where there is none")
    bytes_per_item: float | None = Field(default=None, ge=0)
    breakdown: dict[str, int] = Field(default={}, description="bytes by part (values, indices, scales, ...)")
    metrics: dict[str, Measured] = Field(description="on the test users")
    validation: dict[str, Measured] = Field(default={}, description="on the validation users; what choices rest on")
    few_shot: list[FewShotPoint] = []
    item_groups: dict[str, dict[str, Measured]] = Field(default={}, description="head, torso, tail: metrics of each")
    user_groups: dict[str, dict[str, Measured]] = Field(default={}, description="activity groups: metrics of each")
    cold_items: dict[str, Measured] = Field(
        default={}, description="items without interactions in training; of the protocol cold-items among themselves"
    )
    warm_up: list[WarmUpPoint] = Field(default=[], description="the same items as they gather interactions")
    pruned_items: dict[str, dict[str, Measured]] = Field(
        default={}, description="fallback -> metrics on targets whose rows were pruned"
    )
    pruned_users: dict[str, dict[str, Measured]] = Field(
        default={},
        description="fallback -> metrics on the half of the test users with the shortest histories, had a "
        "user table lost their rows; of the table to ship and the best dense one",
    )
    beyond: dict[str, Number] = Field(default={}, description="coverage, Gini, novelty, ... of the recommended lists")
    cost: Cost = Cost()
    seeds: int = Field(default=1, ge=1, description="trainings pooled in these figures")

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.bytes_total is not None and self.breakdown and sum(self.breakdown.values()) != self.bytes_total:
            total = sum(self.breakdown.values())
            raise ValueError(f"the breakdown of {self.label!r} adds up to {total} bytes, not {self.bytes_total}")
        if (self.bytes_total is None) != (self.bytes_per_item is None):
            raise ValueError(f"{self.label!r} has only one of bytes_total and bytes_per_item")
        return self

    @property
    def metadata_share(self) -> float | None:
        """The share of the bytes that are not values; None without a breakdown."""
        if not self.breakdown or not self.bytes_total:
            return None
        return 1.0 - self.breakdown.get("values", 0) / self.bytes_total


class Comparison(_Part):
    """A paired difference, ``a - b``, on the same users."""

    a: str
    b: str
    metric: str
    users: int
    mean_a: Number
    mean_b: Number
    difference: Number
    low: Number
    high: Number
    wins: int = 0
    losses: int = 0
    p_t: Number = math.nan
    p_wilcoxon: Number = math.nan
    p_permutation: Number = math.nan
    p_holm: Number = math.nan
    why: str = Field(default="", description="why these two: equal bytes, dense reference, ...")


class Claim(_Part):
    """Something said of sparse parameters in general, and what this data says to it."""

    name: str
    claim: str
    experiment: str
    verdict: Literal["holds", "does not hold", "undecided"]
    evidence: str = Field(description="the figures, in a sentence")
    figures: dict[str, Any] = {}


class Results(_Part):
    """Everything a run found."""

    format_version: Literal[1] = FORMAT_VERSION
    run: str
    created: str = Field(description="ISO 8601 time")
    command: str = ""
    versions: dict[str, str] = {}
    machine: str = ""
    seconds: float | None = Field(default=None, description="the whole run")
    dataset: Dataset
    split: SplitInfo
    headline: str = Field(default="ndcg@20", description="the metric of the frontier and of the choice")
    max_loss: float = Field(default=0.02, ge=0, lt=1, description="relative loss of it that the reader accepts")
    rows: list[Row] = Field(min_length=1)
    comparisons: list[Comparison] = []
    claims: list[Claim] = []
    warnings: list[str] = []
    files: dict[str, str] = Field(default={}, description="what lies beside the report: path -> what it is")

    @model_validator(mode="after")
    def _rows_fit_together(self) -> Self:
        labels = [row.label for row in self.rows]
        if len(set(labels)) != len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise ValueError(f"two rows are called {twice!r}")
        for row in self.rows:
            if self.headline not in row.metrics:
                raise ValueError(f"{row.label!r} lacks the headline metric {self.headline!r}")
        return self

    @property
    def metrics(self) -> list[str]:
        """The metrics every row has, in the first row's order."""
        return [metric for metric in self.rows[0].metrics if all(metric in row.metrics for row in self.rows)]

    def row(self, label: str) -> Row:
        """The row of this label."""
        return next(row for row in self.rows if row.label == label)

    def write(self, path: str | Path) -> None:
        """Write the JSON document, whole or not at all."""
        with atomic_file(Path(path)) as partial:
            partial.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_results(path: str | Path) -> Results:
    """Read what :meth:`Results.write` wrote.

    Raises:
        FormatError: the file is damaged, of another version, or a figure in it is impossible; the message names which.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as results ({error}).") from error
    return check_results(document, str(path))


def check_results(document: Any, where: str = "The results") -> Results:
    """Validate results given as a dict (or already validated)."""
    if isinstance(document, Results):
        return document
    if isinstance(document, dict) and document.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise FormatError(
            f"{where} has format version {document['format_version']}; this release reads {FORMAT_VERSION}. "
            "Upgrade recsparse, or evaluate again."
        )
    try:
        return Results.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "the document"
        raise FormatError(f"{where}: {at}: {first['msg']} ({error.error_count()} problem(s) in all).") from error

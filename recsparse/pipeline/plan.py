"""What a run does: its stages, each with a digest of its own settings and of the stages it reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from recsparse.config import RunConfig
from recsparse.pipeline.rows import Training
from recsparse.pipeline.stages import Stage, digest_of


@dataclass(frozen=True)
class Entry:
    """One row of the report and the stages that make it."""

    training: Training
    value_type: str
    model: Stage
    evaluation: Stage

    @property
    def label(self) -> str:
        """The row's name."""
        return self.training.label_of(self.value_type)


@dataclass(frozen=True)
class Plan:
    """The stages of a run in their order; which table is recommended with is known only after the evaluation."""

    directory: Path
    top: int
    build: Stage
    split: Stage
    entries: tuple[Entry, ...]
    report: Stage
    track: Stage | None

    @classmethod
    def of(cls, config: RunConfig, trainings: list[Training], directory: Path, data: str) -> Self:
        """Plan a run whose data have the digest ``data``."""
        measured = config.evaluation.model_dump(mode="json")
        build = Stage("build", directory / "data", data)
        split = Stage("split", directory / "split", digest_of(data, config.split.model_dump(mode="json")))
        entries = []
        for training in trainings:
            for value_type in training.value_types:
                label, slug = training.label_of(value_type), training.slug_of(value_type)
                settings = (training.kind, training.ranks, training.params, training.candidates, value_type)
                chosen_by = (config.evaluation.headline, config.evaluation.metrics)
                model = digest_of(split.digest, settings, chosen_by)
                entries.append(
                    Entry(
                        training,
                        value_type,
                        Stage(f"train {label}", directory / "models" / slug, model),
                        Stage(f"evaluate {label}", directory / "evaluations" / slug, digest_of(model, measured)),
                    )
                )
        top = config.recommendations.top
        rows = [entry.evaluation.digest for entry in entries]
        report = Stage("report", directory, digest_of(rows, config.name, top))
        told = config.tracking.model_dump(mode="json", exclude_none=True)
        track = Stage("track", directory / "tracking", digest_of(report.digest, told)) if told else None
        return cls(directory, top, build, split, tuple(entries), report, track)

    def recommend(self, entry: Entry) -> Stage:
        """Recommendations with the table of a row."""
        return Stage("recommend", self.directory / "recommendations", digest_of(entry.model.digest, self.top))

    def audit(self, entry: Entry) -> Stage:
        """What the figures of a row can be computed from."""
        return Stage("audit", self.directory / "audit", entry.model.digest)

    def before_report(self) -> list[Stage]:
        """All stages up to the evaluation."""
        models = [entry.model for entry in self.entries]
        return [self.build, self.split, *models, *(entry.evaluation for entry in self.entries)]

    def entry(self, label: str) -> Entry:
        """The row with a label."""
        return next(entry for entry in self.entries if entry.label == label)

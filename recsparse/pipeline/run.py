"""The main job: fetch, build, split, train, evaluate, recommend, report; what is up to date is skipped."""

import json
import re
import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from recsparse.config import RunConfig
from recsparse.evaluation import Evaluation, evaluate, few_shot_curve, split_digest
from recsparse.files import atomic_directory
from recsparse.interactions import ITEM, USER, Interactions, Split, build, fetch, load_card, read, read_split, split
from recsparse.interactions import write_split as save_split
from recsparse.interactions.cards import Card
from recsparse.interactions.download import Progress, silent
from recsparse.interactions.fetch import locate
from recsparse.interactions.source import Source
from recsparse.interactions.store import write_table
from recsparse.models import Recommender
from recsparse.pipeline import results as describe
from recsparse.pipeline.rows import Training, trainings
from recsparse.pipeline.stages import digest_of, is_done, mark_done
from recsparse.pipeline.train import train
from recsparse.report import Results, choose, comparisons, write_report
from recsparse.report.results import Row
from recsparse.scoring import Job, recommend_to_parquet


@dataclass(frozen=True)
class _Entry:
    """One row of the report and where its files are."""

    training: Training
    value_type: str
    model: Path
    evaluation: Path

    @property
    def label(self) -> str:
        return self.training.label_of(self.value_type)


class Run:
    """A pipeline file and its directory; each stage leaves its result there and is skipped while that is up to date."""

    def __init__(self, config: RunConfig, *, directory: Path | None = None, progress: Progress | None = None) -> None:
        self.config = config
        self.directory = Path(directory or config.directory)
        self.tell = progress or silent
        self.entries = [self._entry(each, value_type) for each in trainings(config) for value_type in each.value_types]

    def __call__(self, command: str = "") -> Results:
        """Run every stage that is not up to date and write the report; the results are what the report shows."""
        began = time.perf_counter()
        self.directory.mkdir(parents=True, exist_ok=True)
        card, data_digest = self.build()
        split_digest_ = self.split(data_digest)
        parts = read_split(self.directory / "split")
        self.train(parts, split_digest_)
        rows, evaluations = self.evaluate(parts, split_digest_)
        results = self._results(card, parts, rows, evaluations)
        best = choose(results).row
        self.recommend(self._entry_of(best.label), split_digest_)
        self.audit(self._entry_of(best.label), parts)
        results = results.model_copy(
            update={
                "command": command,
                "seconds": time.perf_counter() - began,
                "comparisons": comparisons(rows, evaluations, self.config.evaluation.headline),
            }
        )
        results.write(self.directory / "results.json")
        write_report(results, self.directory / "report.html")
        return results

    def build(self) -> tuple[Card | None, str]:
        """Fetch the data and build the matrix."""
        data, target = self.config.data, self.directory / "data"
        card, root, source = None, Path(), data.source
        if isinstance(source, str) and not Path(source).exists():
            card = load_card(source)
            root = fetch(source, from_path=data.from_path, progress=self.tell)
            source = locate(card, root)
        digest = digest_of(data.model_dump(mode="json"), _state(root, source))
        if not is_done(target, digest):
            build(
                source, target, root=root, name=card.name if card else None, cleaning=data.cleaning,
                memory_limit=data.memory_limit, overwrite=True, progress=self.tell,
            )  # fmt: skip
            mark_done(target, digest)
        return card, digest

    def split(self, data_digest: str) -> str:
        """Cut the matrix into training, validation and test."""
        how, target = self.config.split, self.directory / "split"
        digest = digest_of(data_digest, how.model_dump(mode="json"))
        if not is_done(target, digest):
            self.tell("split", 0, None)
            parts = split(read(self.directory / "data"), how.protocol, seed=how.seed, **how.options)
            save_split(parts, target, overwrite=True)
            mark_done(target, digest)
        return digest

    def train(self, parts: Split, digest: str) -> None:
        """Tune, fit, pack and save every model."""
        todo = trainings(self.config)
        for number, training in enumerate(todo):
            self.tell(f"train {training.label}", number, len(todo))
            entries = [entry for entry in self.entries if entry.training == training]
            own = {entry.value_type: self._digest(entry, digest) for entry in entries}
            if not all(is_done(entry.model, own[entry.value_type]) for entry in entries):
                train(training, parts, self.config, {entry.value_type: entry.model for entry in entries})
                for entry in entries:
                    mark_done(entry.model, own[entry.value_type])
        self.tell("train", len(todo), len(todo))

    def evaluate(self, parts: Split, digest: str) -> tuple[list[Row], dict[str, Evaluation]]:
        """Load every saved model and measure what its packed table does for the test users."""
        rows, evaluations = [], {}
        wanted = self.config.evaluation
        for number, entry in enumerate(self.entries):
            self.tell(f"evaluate {entry.label}", number, len(self.entries))
            own = digest_of(self._digest(entry, digest), wanted.model_dump(mode="json"))
            if not is_done(entry.evaluation, own):
                with atomic_directory(entry.evaluation, overwrite=True) as partial:
                    self._measure(entry, parts, partial)
                mark_done(entry.evaluation, own)
            evaluation = Evaluation.load(entry.evaluation / "test.parquet")
            curve = {k: Evaluation.load(entry.evaluation / f"history-{k}.parquet") for k in wanted.few_shot}
            rows.append(describe.row_of(entry.training, entry.value_type, entry.model, evaluation, curve))
            evaluations[entry.label] = evaluation
        self.tell("evaluate", len(self.entries), len(self.entries))
        return rows, evaluations

    def recommend(self, entry: _Entry, digest: str) -> None:
        """Recommend to every user of the data with the chosen table, as loaded from its file."""
        target, top = self.directory / "recommendations", self.config.recommendations.top
        own = digest_of(self._digest(entry, digest), top)
        if not is_done(target, own):
            self.tell("recommend", 0, None)
            shutil.rmtree(target, ignore_errors=True)
            recommend_to_parquet(entry.model, target, Job(histories=self.directory / "data", k=top))
            mark_done(target, own)

    def audit(self, entry: _Entry, parts: Split) -> None:
        """Write what anybody needs to compute the chosen row's figures again."""
        model, test = Recommender.load(entry.model), parts.test
        lines = model.recommend(k=100, histories=test.history)
        with atomic_directory(self.directory / "audit", overwrite=True) as partial:
            write_table(_pairs(test.history), partial / "history.parquet")
            write_table(_pairs(test.target), partial / "target.parquet")
            write_table(_pairs(parts.train), partial / "train.parquet")
            write_table(pa.Table.from_pandas(lines, preserve_index=False), partial / "recommendations.parquet")
            (partial / "model.json").write_text(json.dumps({"label": entry.label}))

    def _measure(self, entry: _Entry, parts: Split, directory: Path) -> None:
        wanted, model = self.config.evaluation, Recommender.load(entry.model)
        evaluate(model, parts.test, wanted.metrics, name=entry.label, seed=wanted.seed).save(directory / "test.parquet")
        curve = few_shot_curve(
            model, parts.test, wanted.few_shot, [wanted.headline], name=entry.label, seed=wanted.seed
        )
        for k, evaluation in curve.items():
            evaluation.save(directory / f"history-{k}.parquet")

    def _results(self, card: Card | None, parts: Split, rows: list[Row], evaluations: dict[str, Evaluation]) -> Results:
        interactions = read(self.directory / "data")
        name = json.loads((self.directory / "data" / "dataset.json").read_text())["name"]
        wanted = self.config.evaluation
        return Results(
            run=self.config.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=describe.versions(),
            machine=describe.machine(),
            dataset=describe.dataset_of(name, card, interactions),
            split=describe.split_of(parts, split_digest(parts.test)),
            headline=wanted.headline,
            max_loss=wanted.max_loss,
            rows=rows,
            files={
                "results.json": "every figure of this page",
                "audit/": "histories, targets and recommendations of the test users, to compute the figures again",
                "recommendations/": f"the best {self.config.recommendations.top} items for every user",
                "models/": "the trained models with their packed tables",
                "evaluations/": "every metric of every test user",
            },
        )

    def _entry(self, training: Training, value_type: str) -> _Entry:
        slug = re.sub(r"[^a-z0-9.]+", "-", training.label_of(value_type).lower()).strip("-")
        return _Entry(training, value_type, self.directory / "models" / slug, self.directory / "evaluations" / slug)

    def _entry_of(self, label: str) -> _Entry:
        return next(entry for entry in self.entries if entry.label == label)

    def _digest(self, entry: _Entry, split: str) -> str:
        training, wanted = entry.training, self.config.evaluation
        return digest_of(
            split,
            training.kind,
            training.params,
            training.candidates,
            entry.value_type,
            wanted.headline,
            wanted.metrics,
        )


def _pairs(interactions: Interactions) -> pa.Table:
    return pa.Table.from_pandas(interactions.to_frame()[[USER, ITEM]], preserve_index=False)


def _state(root: Path, source: str | Source) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files a source names, to see when they change."""
    patterns = [source] if isinstance(source, str) else [
        part.path for part in (source.ratings, source.users, source.items) if part is not None
    ]  # fmt: skip
    files = [file for pattern in patterns for file in _files(root, pattern)]
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files)]


def _files(root: Path, pattern: str) -> list[Path]:
    place = root / pattern
    if place.is_dir():
        return [file for file in place.rglob("*") if file.is_file()]
    return [place] if place.exists() else [Path(file) for file in root.glob(pattern)]

"""The main job: fetch, build, split, train, evaluate, recommend, report; what is up to date is skipped."""

import functools
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from recsparse.config import PUBLISHED, RunConfig, read_config
from recsparse.distributed.require import require_torchrec
from recsparse.errors import ConfigError
from recsparse.evaluation import Evaluation, split_digest
from recsparse.files import atomic_directory
from recsparse.interactions import ITEM, USER, Interactions, Split, build, published_split, read, read_split, split
from recsparse.interactions import write_split as save_split
from recsparse.interactions.download import Progress, silent
from recsparse.interactions.store import write_table
from recsparse.models import Recommender
from recsparse.models.factors import ITEM_TABLE
from recsparse.pipeline import results as describe
from recsparse.pipeline.fit import fit
from recsparse.pipeline.measure import RowEvaluations, measure
from recsparse.pipeline.plan import Entry, Plan
from recsparse.pipeline.ranks import fit_on_ranks
from recsparse.pipeline.rows import Training, make, trainings
from recsparse.pipeline.sources import Files, find_files, is_here
from recsparse.pipeline.stages import Stage, alone, digest_of
from recsparse.pipeline.track import check_installed, track
from recsparse.pipeline.train import train
from recsparse.report import Results, choose, comparisons, complete, read_results, write_report
from recsparse.report.kept import Kept
from recsparse.report.results import Row
from recsparse.scoring import Job, recommend_to_parquet


class Run:
    """A pipeline file and its directory; each stage leaves its result there and is skipped while that is up to date.

    Raises:
        ConfigError: a model has no such setting, two rows would have one name, or an extra is not installed.
    """

    def __init__(
        self, config: RunConfig, *, directory: Path | None = None, progress: Progress | None = None, where: str = ""
    ) -> None:
        self.config = config
        self.directory = Path(directory or config.directory)
        self.tell = progress or silent
        self.trainings = trainings(config, where)
        check_installed(config.tracking)
        if any(training.ranks for training in self.trainings):
            require_torchrec()

    @classmethod
    def read(cls, file: Path, *, directory: Path | None = None) -> Self:
        """Read a pipeline file; errors name it."""
        return cls(read_config(file), directory=directory, where=f"{file}: ")

    def plan(self) -> list[tuple[Stage, bool]]:
        """Each stage and whether it is up to date; nothing is fetched or written."""
        here = is_here(self.config.data)
        plan = self._plan(find_files(self.config.data, silent)) if here else self._plan(None)
        fetch = [] if here else [Stage(f"fetch {self.config.data.source}", plan.build.directory, "")]
        done = plan.report.is_done()
        last = [
            Stage("recommend", self.directory / "recommendations", ""),
            Stage("audit", self.directory / "audit", ""),
        ]
        if done:
            shipped = plan.entry(choose(read_results(self.directory / "results.json")).row.label)
            last = [plan.recommend(shipped), plan.audit(shipped)]
        stages = [*fetch, *plan.before_report(), *last, plan.report, *([plan.track] if plan.track else [])]
        return [(stage, stage.is_done()) for stage in stages]

    def __call__(self, command: str = "") -> Results:
        """Run every stage that is not up to date; the results are what the report shows."""
        with alone(self.directory):
            files = find_files(self.config.data, self.tell)
            plan = self._plan(files)
            self.build(plan.build, files)
            self.split(plan.split)
            self.train(plan)
            self.evaluate(plan)
            if plan.report.is_done():
                results = read_results(self.directory / "results.json")
            else:
                results = self._results(plan, files, command)
            shipped = plan.entry(choose(results).row.label)
            self.recommend(plan.recommend(shipped), shipped)
            self.audit(plan.audit(shipped), shipped)
            if not plan.report.is_done():
                with plan.report.work():
                    results.write(self.directory / "results.json")
                    write_report(results, self.directory / "report.html")
            if plan.track is not None and not plan.track.is_done():
                self.tell("track", 0, None)
                plan.track.directory.mkdir(exist_ok=True)
                with plan.track.work():
                    track(results, self.config.tracking, shipped.label)
        return results

    def build(self, stage: Stage, files: Files) -> None:
        """Build the matrix."""
        if not stage.is_done():
            with stage.work():
                build(
                    files.source, stage.directory, root=files.root, cleaning=files.cleaning, overwrite=True,
                    name=files.card.name if files.card else self.config.name, progress=self.tell,
                    memory_limit=self.config.data.memory_limit,
                )  # fmt: skip

    def split(self, stage: Stage) -> None:
        """Cut the matrix into training, validation and test."""
        if not stage.is_done():
            self.tell("split", 0, None)
            with stage.work():
                save_split(self._cut(), stage.directory, overwrite=True)

    def train(self, plan: Plan) -> None:
        """Tune, fit, pack and save every model."""
        for number, training in enumerate(self.trainings):
            entries = [entry for entry in plan.entries if entry.training is training]
            if all(entry.model.is_done() for entry in entries):
                continue
            self.tell(f"train {training.label}", number, len(self.trainings))
            places = {entry.value_type: entry.model.directory for entry in entries}
            try:
                work = self.directory / "ranks" / entries[0].model.digest[:16]
                took = train(training, self.parts, self.config, places, functools.partial(self._fit, training, work))
            except ConfigError as error:
                raise ConfigError(f"{training.where}: {error}") from error
            for entry in entries:
                entry.model.finish(took / len(entries))
            shutil.rmtree(work.parent, ignore_errors=True)

    def evaluate(self, plan: Plan) -> None:
        """Load every saved model and measure what its packed table does for the test users."""
        for number, entry in enumerate(plan.entries):
            if entry.evaluation.is_done():
                continue
            self.tell(f"evaluate {entry.label}", number, len(plan.entries))
            with entry.evaluation.work(), atomic_directory(entry.evaluation.directory, overwrite=True) as partial:
                self._measure(entry, partial)

    def recommend(self, stage: Stage, entry: Entry) -> None:
        """Recommend to every user of the data with the chosen table, as loaded from its file."""
        if not stage.is_done():
            self.tell("recommend", 0, None)
            # Published parts have the items of the data in an order of their own.
            published = self.config.split.protocol == PUBLISHED
            job = Job(histories=self.directory / "data", k=self.config.recommendations.top, match_items=published)
            with stage.work(), atomic_directory(stage.directory, overwrite=True) as partial:
                recommend_to_parquet(entry.model.directory, partial, job)

    def audit(self, stage: Stage, entry: Entry) -> None:
        """Write what anybody needs to compute the chosen row's figures again."""
        if stage.is_done():
            return
        test = self.parts.test
        with stage.work(), atomic_directory(stage.directory, overwrite=True) as partial:
            lines = Recommender.load(entry.model.directory).recommend(k=100, histories=test.history)
            write_table(_pairs(test.history), partial / "history.parquet")
            write_table(_pairs(test.target), partial / "target.parquet")
            write_table(_pairs(self.parts.train), partial / "train.parquet")
            write_table(pa.Table.from_pandas(lines, preserve_index=False), partial / "recommendations.parquet")
            (partial / "model.json").write_text(json.dumps({"label": entry.label}))

    @functools.cached_property
    def parts(self) -> Split:
        """Training, validation and test as they lie on disk."""
        return read_split(self.directory / "split")

    def _cut(self) -> Split:
        data, how = self.config.data, self.config.split
        if how.protocol == PUBLISHED and data.card is not None:
            return published_split(
                data.card, from_path=data.from_path, seed=how.seed, memory_limit=data.memory_limit,
                progress=self.tell, **how.options,
            )  # fmt: skip
        return split(read(self.directory / "data"), how.protocol, seed=how.seed, **how.options)

    def _plan(self, files: Files | None) -> Plan:
        return Plan.of(self.config, self.trainings, self.directory, files.digest if files else "not here yet")

    def _fit(self, training: Training, work: Path, params: dict[str, Any]) -> Recommender:
        if training.ranks is None:
            number = self.trainings.index(training)
            return fit(
                make(training.kind, params), params, self.parts.train, self.parts.validation,
                lambda news, *_: self.tell(f"train {training.label}: {news}", number, len(self.trainings)),
                headline=self.config.evaluation.headline,
            )  # fmt: skip
        output = work / digest_of(params)[:16]
        return fit_on_ranks(params, training.ranks, self.directory / "split", output, self.tell)

    def _measure(self, entry: Entry, directory: Path) -> None:
        model = Recommender.load(entry.model.directory)
        measure(model, self.parts, self.config.evaluation, entry.label).save(directory)

    def _results(self, plan: Plan, files: Files, command: str) -> Results:
        wanted, rows, evaluations = self.config.evaluation, list[Row](), dict[str, Evaluation]()
        for entry in plan.entries:
            measured = RowEvaluations.load(entry.evaluation.directory)
            evaluations[entry.label] = measured.test
            rows.append(describe.row_of(entry, measured))
        effects = {"effects/": "lists, timings, fallbacks and experiments that the further tables and claims rest on"}
        results = Results(
            run=self.config.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            command=command,
            versions=describe.versions(),
            machine=describe.machine(),
            seconds=sum(stage.seconds for stage in plan.before_report()),
            dataset=describe.dataset_of(self.config.name, files.card, read(self.directory / "data")),
            split=describe.split_of(self.parts, split_digest(self.parts.test)),
            headline=wanted.headline,
            max_loss=wanted.max_loss,
            rows=rows,
            comparisons=comparisons(rows, evaluations, wanted.headline),
            files={
                "results.json": "every figure of this page",
                "audit/": "histories, targets and recommendations of the test users, to compute the figures again",
                "recommendations/": f"the best {plan.top} items for every user",
                "models/": "the trained models with their packed tables",
                "evaluations/": "every metric of every test user",
                **(effects if wanted.effects else {}),
            },
        )
        kept = self.directory / "effects"
        if not wanted.effects:
            shutil.rmtree(kept, ignore_errors=True)
            return results
        self.tell("effects", 0, None)
        with atomic_directory(kept, overwrite=True) as partial:
            return complete(
                results, lambda label: Recommender.load(plan.entry(label).model.directory), evaluations, self.parts,
                file_of=lambda label: plan.entry(label).model.directory / ITEM_TABLE, noise=wanted.noise,
                kept=Kept(partial),
            )  # fmt: skip


def _pairs(interactions: Interactions) -> pa.Table:
    return pa.Table.from_pandas(interactions.to_frame()[[USER, ITEM]], preserve_index=False)

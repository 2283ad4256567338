"""Runs side by side: who beats whom, by how much, with which certainty."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.evaluation.evaluate import Evaluation
from recsparse.evaluation.pool import pool
from recsparse.evaluation.significance import Difference, holm, paired
from recsparse.report.choice import choose
from recsparse.report.results import Results, read_results


def compare_runs(
    runs: Sequence[str | Path | Sequence[str | Path]],
    *,
    label: str | None = None,
    metric: str | None = None,
    n_permutations: int = 9999,
    seed: int = 0,
) -> list[Difference]:
    """Compare runs pairwise, user by user, Holm-corrected over all pairs.

    Args:
        runs: directories; one that is a sequence of directories is the seeds of one recipe, pooled by user.
        label: the row compared; the one each run chose to ship by default.
        metric: the headline metric by default.
        n_permutations: of the permutation test.
        seed: of all draws.

    Returns:
        A difference a pair; names are ``run: label``.

    Raises:
        DataError: the runs are of different splits, headline metrics or roles, or lack the row.
        ConfigError: there are fewer than two.
    """
    if len(runs) < 2:
        raise ConfigError(f"There are {len(runs)} runs; name at least two to compare.")
    groups = [[Path(run)] if isinstance(run, str | Path) else [Path(one) for one in run] for run in runs]
    headlines = {read_results(directory / "results.json").headline for group in groups for directory in group}
    if metric is None:
        if len(headlines) > 1:
            raise DataError(f"The runs have different headline metrics ({', '.join(sorted(headlines))}); name one.")
        metric = headlines.pop()
    evaluations = [_of_group(group, label, metric) for group in groups]
    return holm(
        [paired(a, b, [metric], n_permutations=n_permutations, seed=seed)[0] for a, b in combinations(evaluations, 2)]
    )


def _of_group(directories: list[Path], label: str | None, metric: str) -> Evaluation:
    """The row's evaluation, pooled over the group's runs; of groups of one, too, so that users stand in one order."""
    label = label or choose(read_results(directories[0] / "results.json")).row.label
    found = [read_evaluation(directory, label) for directory in directories]
    results = read_results(directories[0] / "results.json")
    return pool(found, [metric], name=f"{_name(results, directories)}: {label}")


def read_evaluation(directory: Path, label: str) -> Evaluation:
    """The per-user test figures of one row of a run.

    Raises:
        DataError: the run has no such row; the message names those it has.
        FormatError: there are no per-user figures in the directory.
    """
    files = sorted(directory.glob("evaluations/*/test.parquet"))
    if not files:
        raise FormatError(f"{directory} holds no evaluations/*/test.parquet; run it again.")
    labels = []
    for file in files:
        evaluation = Evaluation.load(file)
        if evaluation.name == label:
            return evaluation
        labels.append(evaluation.name)
    raise DataError(f"{directory} has no row {label!r}; it has {', '.join(sorted(labels))}.")


def _name(results: Results, directories: list[Path]) -> str:
    return directories[0].name if len(directories) == 1 else f"{results.run} ({len(directories)} seeds)"

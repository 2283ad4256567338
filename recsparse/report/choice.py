"""Which table to ship, by a rule anybody can check: the smallest within the loss the reader accepts."""

from collections.abc import Mapping
from dataclasses import dataclass

from recsparse.errors import DataError
from recsparse.evaluation.evaluate import Evaluation
from recsparse.evaluation.significance import holm, paired
from recsparse.report.results import Comparison, Measured, Results, Row

DENSE = ("dense", "quantised")


@dataclass(frozen=True)
class Choice:
    """The table to ship.

    Attributes:
        row: the smallest table whose headline metric is at most ``max_loss`` (relative) below the reference's.
        reference: the best dense fp32 table.
        rival: the best dense table, of any value type, that is no larger than ``row``; None where there is none.
        role: the users the choice rests on: ``"validation"``, or ``"test"`` where validation figures are missing (the
            choice is then optimistic, and the report says so).
    """

    row: Row
    reference: Row
    rival: Row | None
    role: str

    @property
    def times_smaller(self) -> float:
        """The reference's bytes over the choice's."""
        return bytes_of(self.reference) / bytes_of(self.row)


def choose(results: Results) -> Choice:
    """Apply the rule. Ties in bytes go to the better table.

    Raises:
        DataError: no row has a packed table.
    """
    role = _role(results)
    reference = _reference(results)
    row = min(good_enough(results), key=lambda one: (bytes_of(one), -_figure(one, results.headline, role).mean))
    return Choice(row, reference, equal_bytes_rival(results.rows, row, results.headline, role), role)


def good_enough(results: Results) -> list[Row]:
    """The tables whose headline metric is at most ``max_loss`` (relative) below the best dense fp32 table's."""
    role = _role(results)
    least = (1.0 - results.max_loss) * _figure(_reference(results), results.headline, role).mean
    return [row for row in _tables(results) if _figure(row, results.headline, role).mean >= least]


def equal_bytes_rival(rows: list[Row], row: Row, metric: str, role: str = "validation") -> Row | None:
    """The best dense table, of any value type, with at most ``row``'s bytes; the table a sparse one has to beat."""
    rivals = [
        other
        for other in rows
        if other.family in DENSE and other.label != row.label and other.bytes_total and bytes_of(other) <= bytes_of(row)
    ]
    return max(rivals, key=lambda other: _figure(other, metric, role).mean, default=None)


def comparisons(
    rows: list[Row], evaluations: Mapping[str, Evaluation], metric: str, *, n_permutations: int = 0, seed: int = 0
) -> list[Comparison]:
    """Compare each table with the best dense one and each sparse table with its rival at equal bytes, user by user.

    Args:
        rows: the results' rows.
        evaluations: by row label, all of the same test users.
        metric: the headline metric.
        n_permutations: as in :func:`recsparse.evaluation.paired`.
        seed: of all draws.

    Returns:
        Comparisons, Holm-corrected over all of them together.
    """
    tables = [row for row in rows if row.bytes_total]
    dense = [row for row in tables if row.family == "dense"]
    pairs: list[tuple[Row, Row, str]] = []
    for row in tables:
        if dense and row.label != (best := max(dense, key=lambda other: _figure(other, metric).mean)).label:
            pairs.append((row, best, "best dense table"))
        rival = None if row.family in DENSE else equal_bytes_rival(rows, row, metric)
        if rival is not None:
            pairs.append((row, rival, "dense at equal bytes"))
    differences = []
    for row, other, _ in pairs:
        differences += paired(
            evaluations[row.label], evaluations[other.label], [metric], n_permutations=n_permutations, seed=seed
        )
    found = zip(holm(differences), pairs, strict=True)
    return [
        Comparison.model_validate({**difference.to_dict(), "a": row.label, "b": other.label, "why": why})
        for difference, (row, other, why) in found
    ]


def _tables(results: Results) -> list[Row]:
    tables = [row for row in results.rows if row.bytes_total]
    if not tables:
        raise DataError("No row has a packed table, so there is nothing to choose from; pack one.")
    return tables


def _role(results: Results) -> str:
    return "validation" if all(results.headline in row.validation for row in _tables(results)) else "test"


def _reference(results: Results) -> Row:
    tables, role = _tables(results), _role(results)
    dense = [row for row in tables if row.family == "dense"]
    return max(dense or tables, key=lambda row: _figure(row, results.headline, role).mean)


def bytes_of(row: Row) -> int:
    """The bytes of a row that has a table."""
    if row.bytes_total is None:
        raise DataError(f"{row.label!r} has no packed table.")
    return row.bytes_total


def _figure(row: Row, metric: str, role: str = "validation") -> Measured:
    """The figure on users of ``role``; test where there is none on validation."""
    return row.validation[metric] if role == "validation" and metric in row.validation else row.metrics[metric]

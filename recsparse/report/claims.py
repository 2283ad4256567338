"""What is said of sparse parameters, where a run's rows alone decide it: storage, computation, metadata, conversion.

A claim that does not hold is reported as not holding. :mod:`recsparse.report.experiments` has the claims that take an
experiment of their own.
"""

from recsparse.errors import DataError
from recsparse.report.choice import DENSE, bytes_of, good_enough
from recsparse.report.results import Claim, Results, Row
from recsparse.report.words import human_bytes, metric_name, percent


def claims_from_results(results: Results) -> list[Claim]:
    """The claims that the rows alone decide: storage, computation, metadata and conversion."""
    tables = good_enough(results)
    sparse = [row for row in tables if row.family not in DENSE]
    dense = [row for row in tables if row.family in DENSE]
    found = []
    if sparse and dense:
        found.append(_storage(results, min(sparse, key=bytes_of), min(dense, key=bytes_of)))
    reference = max((row for row in dense if row.family == "dense"), key=bytes_of, default=None)
    if sparse:
        best = min(sparse, key=bytes_of)
        if reference is not None and best.cost.top_k and reference.cost.top_k:
            found.append(_computation(best, reference))
        if best.metadata_share is not None:
            found.append(_metadata(best))
        if best.cost.convert_seconds is not None and best.cost.fit_seconds:
            found.append(_conversion(best, best.cost.convert_seconds, best.cost.fit_seconds))
    return found


def _storage(results: Results, sparse: Row, dense: Row) -> Claim:
    return Claim(
        name="Storage",
        claim="Sparse tables take less space than dense ones that are as good, quantised ones included.",
        experiment="The smallest table of each kind that loses at most "
        f"{percent(results.max_loss)} of the best dense one's {metric_name(results.headline)}.",
        verdict="holds" if bytes_of(sparse) < bytes_of(dense) else "does not hold",
        evidence=f"{sparse.label} takes {human_bytes(sparse.bytes_per_item)} an item, {dense.label} "
        f"{human_bytes(dense.bytes_per_item)}.",
        figures={"sparse": bytes_of(sparse), "dense": bytes_of(dense)},
    )


def _computation(sparse: Row, dense: Row) -> Claim:
    ours, theirs = sparse.cost.top_k, dense.cost.top_k
    if ours is None or theirs is None:
        raise DataError("A row lacks the latency of its top-K.")
    ratio = ours.p50_ms / theirs.p50_ms
    return Claim(
        name="Computation",
        claim="A sparse table answers faster than a dense one.",
        experiment="Half of the top-K calls for one user are faster than this (p50); a tenth of a difference is a tie.",
        verdict="holds" if ratio < 0.9 else "does not hold" if ratio > 1.1 else "undecided",
        evidence=f"{sparse.label} {ours.p50_ms:.3g} ms, {dense.label} {theirs.p50_ms:.3g} ms ({ratio:.2f} times).",
        figures={"sparse_p50_ms": ours.p50_ms, "dense_p50_ms": theirs.p50_ms},
    )


def _metadata(row: Row) -> Claim:
    share = row.metadata_share or 0.0
    parts = ", ".join(f"{name} {human_bytes(size)}" for name, size in row.breakdown.items())
    return Claim(
        name="Metadata",
        claim="Finding the values costs space of its own.",
        experiment="Bytes of the packed table that are not values; a cost from a twentieth on.",
        verdict="holds" if share >= 0.05 else "does not hold",
        evidence=f"{percent(share)} of {row.label}: {parts}.",
        figures={"share": share},
    )


def _conversion(row: Row, convert: float, fit: float) -> Claim:
    return Claim(
        name="Conversion",
        claim="Converting the trained array to its sparse form takes time.",
        experiment="Seconds to pack over seconds to train; a cost from a hundredth on.",
        verdict="holds" if convert >= 0.01 * fit else "does not hold",
        evidence=f"{1000 * convert:.1f} ms for {row.label}, {percent(convert / fit)} of its training.",
        figures={"convert_seconds": convert, "fit_seconds": fit},
    )

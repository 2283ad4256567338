"""What a run found, as one page a person wants to read."""

from recsparse.report.choice import Choice, choose, comparisons
from recsparse.report.complete import complete
from recsparse.report.figures import (
    bytes_figure,
    differences_figure,
    few_shot_figure,
    frontier_figure,
    groups_figure,
    warm_up_figure,
)
from recsparse.report.html import write_report
from recsparse.report.results import Results, read_results

__all__ = [
    "Choice",
    "Results",
    "bytes_figure",
    "choose",
    "comparisons",
    "complete",
    "differences_figure",
    "few_shot_figure",
    "frontier_figure",
    "groups_figure",
    "read_results",
    "warm_up_figure",
    "write_report",
]

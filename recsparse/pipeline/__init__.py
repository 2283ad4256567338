"""From a pipeline file to a report, stage by stage."""

from recsparse.pipeline.run import Run

__all__ = ["Run"]

"""What a report's figures were computed from, as files beside it, so that anybody can compute them again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsparse.evaluation.evaluate import Evaluation


@dataclass(frozen=True)
class Kept:
    """A directory of Parquet files; without one nothing is kept.

    Attributes:
        directory: where the files go.
    """

    directory: Path | None = None

    def below(self, name: str) -> "Kept":
        """A directory in it."""
        return Kept(None if self.directory is None else self.directory / name)

    def columns(self, name: str, columns: Mapping[str, Any]) -> None:
        """Keep columns of equal length."""
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(dict(columns)), self.directory / f"{name}.parquet")

    def evaluation(self, name: str, evaluation: Evaluation) -> None:
        """Keep the ranks of every user's targets."""
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
            evaluation.save(self.directory / f"{name}.parquet")


NOTHING = Kept()
"""Keeps nothing."""

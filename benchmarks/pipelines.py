"""Run pipeline files whole and keep what they found, a line a row: the report's main table.

Run from the checkout; the data are in the folder RECSPARSE_DATA, a folder a dataset:

    RECSPARSE_DATA=... python benchmarks/pipelines.py ml-1m movietweetings gowalla

Each goes to runs/NAME as `recsparse run` would have it, skips what is up to date there, and is recorded in
results/pipeline-NAME.json. One split and one training a row: intervals are over users alone.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from recsparse.config import read_config
from recsparse.pipeline import Run
from recsparse.report import Results, choose

ROOT = Path(__file__).parents[1]


def record(results: Results) -> dict[str, Any]:
    """What the main table needs."""
    told = results.model_dump(mode="json", include={"run", "command", "created", "machine", "versions", "seconds"})
    told |= {"split": results.split.model_dump(mode="json"), "headline": results.headline}
    told |= {"ship": choose(results).row.label, "max_loss": results.max_loss}
    columns = {"label", "family", "bytes_per_item", "metrics", "validation", "params"}
    told["rows"] = [row.model_dump(mode="json", include=columns) for row in results.rows]
    told["comparisons"] = [comparison.model_dump(mode="json") for comparison in results.comparisons]
    told["claims"] = [claim.model_dump(mode="json", exclude={"figures"}) for claim in results.claims]
    return told


def run(name: str, data: Path) -> None:
    """One pipeline file, its data taken from a folder here."""
    config = read_config(ROOT / "pipelines" / f"{name}.toml")
    here = config.data.model_copy(update={"from_path": data / str(config.data.source)})
    results = Run(config.model_copy(update={"data": here}))(command=f"recsparse run pipelines/{name}.toml")
    write(name, results)


def write(name: str, results: Results) -> None:
    """Keep the record."""
    file = ROOT / "benchmarks" / "results" / f"pipeline-{name}.json"
    file.write_text(json.dumps(record(results), indent=1) + "\n")


if __name__ == "__main__":
    for each in sys.argv[1:]:
        run(each, Path(os.environ["RECSPARSE_DATA"]))

"""``recsparse score-pairs`` and ``recsparse similar``: single scores, and what is near what."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from recsparse.cli.console import AsJson, Output, answer, out, progress
from recsparse.cli.score import known_ids
from recsparse.errors import ConfigError

Model = Annotated[Path, typer.Argument(help="A saved model's directory.")]


def score_pairs(
    model: Model,
    pairs: Annotated[Path, typer.Argument(help="Parquet file with user_id and item_id; other columns are kept.")],
    output: Output,
    as_json: AsJson = False,
) -> None:
    """Add a column with the model's score to a Parquet file of pairs; null where it does not know one of the two.

    Example: recsparse score-pairs model candidates.parquet -o scored.parquet
    """
    from recsparse.scoring.pairs import score_pairs_to_parquet

    with progress() as tell:
        tell("score pairs", 0, None)
        known = score_pairs_to_parquet(model, pairs, output)
    answer({"file": output, "scored": known}, as_json, "scored")


def similar(
    model: Model,
    item: Annotated[list[str] | None, typer.Option(help="Items like this one; may be repeated.")] = None,
    user: Annotated[list[str] | None, typer.Option(help="Users like this one; may be repeated.")] = None,
    top: Annotated[int, typer.Option("--top", "-k", min=1, help="How many for each.")] = 10,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Parquet file; for all items if none is named.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find items (or users) with the nearest embeddings, by cosine of the packed table's vectors.

    Example: recsparse similar model --item 50 --top 5
    """
    from recsparse.files import atomic_file
    from recsparse.interactions import ITEM, USER
    from recsparse.interactions.store import write_table
    from recsparse.models import Recommender
    from recsparse.scoring.similar import similar_items, similar_users

    if (item and user) or not (item or user or output):
        raise ConfigError("Name items (--item) or users (--user), not both; or a file for all items (--output).")
    loaded = Recommender.load(model)
    if user:
        found = similar_users(loaded, known_ids(user, model / "users.parquet", USER), top)
    else:
        found = similar_items(loaded, known_ids(item, model / "items.parquet", ITEM) if item else None, top)
    if output:
        with atomic_file(output) as partial:
            write_table(found, partial)
        answer({"file": output, "lines": found.num_rows}, as_json, "written")
        return
    lines: list[dict[str, Any]] = found.to_pylist()
    if as_json:
        answer({"similar": lines}, as_json, "")
        return
    table = Table(*found.column_names)
    for line in lines:
        table.add_row(*(Text(f"{value:.4f}" if isinstance(value, float) else str(value)) for value in line.values()))
    out.print(table)

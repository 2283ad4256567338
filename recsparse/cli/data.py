"""``recsparse data``: public datasets, made-up ones, and what is in a dataset directory."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from recsparse.cli.console import AsJson, Output, Overwrite, answer, out, progress
from recsparse.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Datasets: list, show and fetch public ones, describe any, make one up.")

Name = Annotated[str, typer.Argument(help="A dataset card's name; `recsparse data list` has them.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the public datasets this release knows, with their size and terms.

    Example: recsparse data list
    """
    from recsparse.interactions.cards import all_cards

    cards = all_cards()
    if as_json:
        answer({"cards": [card.model_dump(mode="json") for card in cards]}, as_json, "")
        return
    table = Table("name", "title", "users", "items", "interactions", "licence")
    for card in cards:
        sizes = [f"{n:,}" if n else "" for n in (card.counts.users, card.counts.items, card.counts.interactions)]
        table.add_row(card.name, Text(card.title), *sizes, Text(card.licence))
    out.print(table)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one dataset's card: what it is, its terms, how to cite it, where it comes from.

    Example: recsparse data show ml-100k
    """
    from recsparse.interactions import load_card

    card = load_card(name)
    if as_json:
        answer(card.model_dump(mode="json"), as_json, "")
        return
    values = {
        "title": card.title, "about": card.about, "licence": card.licence, "redistribution": card.redistribution,
        "citation": card.citation, "homepage": card.homepage, **card.counts.model_dump(exclude_none=True),
        "sources, in order": ", ".join(origin.name for origin in card.origins),
    }  # fmt: skip
    answer(values, as_json, name)


@app.command()
def fetch(
    name: Name,
    from_path: Annotated[Path | None, typer.Option("--from", help="Files or an archive you have already.")] = None,
    as_json: AsJson = False,
) -> None:
    """Download a dataset into the cache, checksums verified; a second time touches no network.

    Example: recsparse data fetch ml-100k
    """
    from recsparse.interactions import fetch as get

    with progress() as tell:
        directory = get(name, from_path=from_path, progress=tell)
    answer({"directory": directory}, as_json, name)


@app.command()
def stats(
    data: Annotated[Path, typer.Argument(help="A dataset directory.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="HTML file for the figures with plots.")] = None,
    as_json: AsJson = False,
) -> None:
    """Describe a dataset: sizes, how unequally it is spread, its ratings, its time, its features.

    Example: recsparse data stats data -o data.html
    """
    from recsparse.interactions.stats import describe, write_stats

    found = describe(data)
    if output:
        write_stats(found, output)
    if as_json:
        answer(found.to_dict(), as_json, "")
        return
    said = {"users": found.users, "items": found.items, "interactions": found.interactions, "density": found.density}
    answer(said | ({"plots": output} if output else {}), as_json, found.name)
    table = Table("interactions of", "a user", "an item")
    both = (found.activity, found.popularity)
    table.add_row("mean", *(f"{side['mean']:,.1f}" for side in both))
    for each in found.activity["percentiles"]:
        table.add_row(f"{each} % have at most", *(f"{side['percentiles'][each]:,.0f}" for side in both))
    table.add_row("the top 1 % have", *(f"{side['top']['1%']:.1%}" for side in both))
    table.add_row("Gini coefficient", *(f"{side['gini']:.3f}" for side in both))
    out.print(table)


@app.command()
def synth(
    output: Output,
    users: Annotated[int, typer.Option(min=1, help="How many users.")] = 10_000,
    items: Annotated[int, typer.Option(min=1, help="How many items, at least 24.")] = 2_000,
    interactions: Annotated[int, typer.Option(min=1, help="About how many interactions.")] = 500_000,
    seed: Annotated[int, typer.Option(help="Decides everything.")] = 0,
    form: Annotated[str, typer.Option("--format", help="csv or parquet.")] = "csv",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Make up ratings at any scale, with a long tail, tastes to recover, features and drift.

    Example: recsparse data synth -o made-up --users 1000000 --items 100000 --interactions 100000000
    """
    from recsparse.interactions import synthesise

    if form not in ("csv", "parquet"):
        raise ConfigError(f"--format is {form!r}; it must be csv or parquet.")
    with progress() as tell:
        synthesise(
            output, users=users, items=items, interactions=interactions, seed=seed, overwrite=overwrite, progress=tell,
            form="csv" if form == "csv" else "parquet",
        )  # fmt: skip
    answer({"directory": output, "files": sorted(file.name for file in output.iterdir())}, as_json, "made up")

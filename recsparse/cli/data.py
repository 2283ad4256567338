"""``recsparse data``: public datasets and what is in a dataset directory."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recsparse.cli.console import AsJson, answer, out, progress

app = typer.Typer(no_args_is_help=True, help="Public datasets: list, show and fetch them.")

Name = Annotated[str, typer.Argument(help="A dataset card's name; `recsparse data list` has them.")]


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the public datasets this release knows, with their size and terms."""
    from recsparse.interactions.cards import all_cards

    cards = all_cards()
    if as_json:
        answer({"cards": [card.model_dump(mode="json") for card in cards]}, as_json, "")
        return
    table = Table("name", "title", "users", "items", "interactions", "licence")
    for card in cards:
        sizes = [f"{n:,}" if n else "" for n in (card.counts.users, card.counts.items, card.counts.interactions)]
        table.add_row(card.name, card.title, *sizes, card.licence)
    out.print(table)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one dataset's card: what it is, its terms, how to cite it, where it comes from."""
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
    """Download a dataset into the cache, checksums verified; a second time touches no network."""
    from recsparse.interactions import fetch as run

    with progress() as tell:
        directory = run(name, from_path=from_path, progress=tell)
    answer({"directory": directory}, as_json, name)

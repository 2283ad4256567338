"""From raw files to the user x item matrix in Parquet, and from there to training and test."""

from recsparse.interactions.build import append, build
from recsparse.interactions.cards import Card, list_cards, load_card
from recsparse.interactions.cleaning import Cleaning
from recsparse.interactions.fetch import fetch
from recsparse.interactions.interactions import ITEM, USER, Interactions
from recsparse.interactions.parts import published_split
from recsparse.interactions.published import mult_vae, predefined
from recsparse.interactions.reading import row_groups, stream, to_arrow, to_torch
from recsparse.interactions.source import Column, Features, Ratings, Source
from recsparse.interactions.split import Holdout, Split, read_split, split, write_split
from recsparse.interactions.split_stream import split_directory
from recsparse.interactions.stats import Stats, describe, write_stats
from recsparse.interactions.store import read, write
from recsparse.interactions.synth import synthesise

__all__ = [
    "ITEM",
    "USER",
    "Card",
    "Cleaning",
    "Column",
    "Features",
    "Holdout",
    "Interactions",
    "Ratings",
    "Source",
    "Split",
    "Stats",
    "append",
    "build",
    "describe",
    "fetch",
    "list_cards",
    "load_card",
    "mult_vae",
    "predefined",
    "published_split",
    "read",
    "read_split",
    "row_groups",
    "split",
    "split_directory",
    "stream",
    "synthesise",
    "to_arrow",
    "to_torch",
    "write",
    "write_split",
    "write_stats",
]

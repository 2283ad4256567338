"""From raw files to the user x item matrix in Parquet, and from there to training and test."""

from recsparse.interactions.build import append, build
from recsparse.interactions.cards import Card, list_cards, load_card
from recsparse.interactions.cleaning import Cleaning
from recsparse.interactions.fetch import fetch
from recsparse.interactions.interactions import ITEM, USER, Interactions
from recsparse.interactions.source import Column, Features, Ratings, Source
from recsparse.interactions.split import Holdout, Split, read_split, split, write_split
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
    "append",
    "build",
    "fetch",
    "list_cards",
    "load_card",
    "read",
    "read_split",
    "split",
    "synthesise",
    "write",
    "write_split",
]

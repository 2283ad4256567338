"""Recommenders whose embedding tables are sparse."""

__version__ = "0.1.0"

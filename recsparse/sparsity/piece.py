"""The common base of a recipe's pieces: small, frozen, validated, and the same in Python, TOML and JSON."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Piece(BaseModel):
    """One part of a recipe; equal settings make equal pieces."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def named(value: Any) -> Any:
    """Let a bare string stand for the piece of that kind with its defaults: ``"element"``."""
    return {"kind": value} if isinstance(value, str) else value

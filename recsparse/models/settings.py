"""Settings of models: checked before anything is learned, and written as JSON."""

from collections.abc import Iterable
from math import isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np
from pydantic import BaseModel
from sklearn.base import BaseEstimator

from recsparse.errors import ConfigError


def check_whole(model: BaseEstimator, *names: str, least: int = 1) -> None:
    """Refuse settings that are not whole numbers, Python's or NumPy's, of at least ``least``.

    Example:
        >>> from recsparse.models import IALS
        >>> check_whole(IALS(dim=2.5), "dim")
        Traceback (most recent call last):
        recsparse.errors.ConfigError: dim is 2.5; it must be a whole number of at least 1.
    """
    for name in names:
        value = getattr(model, name)
        if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
            raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {least}.")


def check_number(model: BaseEstimator, *names: str, zero: bool = False) -> None:
    """Refuse settings that are not finite numbers above 0, or of at least 0 with ``zero``."""
    for name in names:
        value = getattr(model, name)
        number = isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
        if not number or value < 0 or (value == 0 and not zero):
            allowed = "of at least 0" if zero else "above 0"
            raise ConfigError(f"{name} is {value!r}; it must be a finite number {allowed}.")


def check_choice(model: BaseEstimator, name: str, allowed: Iterable[str]) -> None:
    """Refuse a setting that is none of these."""
    if (value := getattr(model, name)) not in (allowed := tuple(allowed)):
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}.")


def check_epochs(model: BaseEstimator) -> None:
    """Refuse what no training in epochs can follow: ``dim``, ``epochs``, ``patience`` and ``random_state``."""
    check_whole(model, "dim", "epochs")
    check_whole(model, "random_state", least=0)
    if getattr(model, "patience", None) is not None:
        check_whole(model, "patience")


def plain(value: Any) -> Any:
    """Write a setting that JSON does not know, as ``default`` of :func:`json.dumps`: a recipe, a NumPy number.

    Raises:
        TypeError: it is something else.
    """
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} cannot be written as JSON")

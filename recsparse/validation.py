"""Settings checked by pydantic, refused in one sentence that names the key, where it was and what is allowed."""

from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from recsparse.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[Any, ...]


def validate(model: type[Model], data: Any, where: str) -> Model:
    """Make ``model`` of plain data that was found in ``where`` (a file, an argument).

    Raises:
        ConfigError: a key is unknown or missing, or a value is of the wrong type or impossible.

    Example:
        >>> class Size(BaseModel):
        ...     rows: int
        >>> validate(Size, {"colour": "red"}, "size.toml")
        Traceback (most recent call last):
        recsparse.errors.ConfigError: size.toml: rows: this key is required and missing.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # Where a value may be of several kinds, what is deepest belongs to the kind that was meant.
        found = [(_keys(model, data, each["loc"]), each) for each in error.errors(include_url=False)]
        keys, first = max(found, key=lambda each: (len(each[0]), each[1]["type"] == "extra_forbidden"))
        more = len({place for place, _ in found if place != keys[: len(place)]})
        rest = f" ({more} more like it.)" if more else ""
        raise ConfigError(f"{where}: {_sentence(model, keys, first)}{rest}") from error


def _keys(model: type[BaseModel], data: Any, place: Place) -> Place:
    """The keys on the way to ``place`` that were written, or left out; it also names the kinds that were tried."""
    keys = []
    for number, part in enumerate(place):
        held = range(len(data)) if isinstance(data, list | tuple) else data if isinstance(data, dict) else ()
        if part in held:
            data = data[part]
        elif not any(part in known.model_fields for known in _models_at(model, place[:number])):
            continue
        keys.append(part)
    return tuple(keys)


def _sentence(model: type[BaseModel], keys: Place, error: Any) -> str:
    key = ".".join(str(part) for part in keys) or "the whole"
    if error["type"] == "extra_forbidden":
        allowed = sorted({name for known in _models_at(model, error["loc"][:-1]) for name in known.model_fields})
        return f"{key}: there is no such key; allowed are {', '.join(allowed)}."
    if error["type"] == "missing":
        return f"{key}: this key is required and missing."
    message = error["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{key}: {_short(error['input'])} is not allowed: {message[0].lower()}{message[1:]}."


def _models_at(model: type[BaseModel], place: Place) -> list[type[BaseModel]]:
    """The models that may stand at this place of ``model``; a union's tag in the place picks one of them."""
    here: list[type[BaseModel]] = [model]
    for part in place:
        if isinstance(part, int):
            continue
        fields = [known.model_fields[part].annotation for known in here if part in known.model_fields]
        tagged = [
            known for known in here if "kind" in known.model_fields and known.model_fields["kind"].default == part
        ]
        here = [found for field in fields for found in _models_in(field)] or tagged or here
    return here


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

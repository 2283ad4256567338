"""Settings checked by pydantic, refused in one sentence that names the key, where it was and what is allowed."""

from collections.abc import Iterator
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from recsparse.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], data: Any, where: str) -> Model:
    """Make ``model`` of plain data that was found in ``where`` (a file, an argument).

    Raises:
        ConfigError: a key is unknown or missing, or a value is of the wrong type or impossible.

    Example:
        >>> class Size(BaseModel, extra="forbid"):
        ...     rows: int
        >>> validate(Size, {"colour": "red"}, "size.toml")
        Traceback (most recent call last):
        recsparse.errors.ConfigError: size.toml: rows: this key is required and missing. (1 more like it.)
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        more = error.error_count() - 1
        rest = f" ({more} more like it.)" if more else ""
        raise ConfigError(f"{where}: {_sentence(model, first)}{rest}") from error


def _sentence(model: type[BaseModel], error: Any) -> str:
    place = tuple(error["loc"])
    key = ".".join(str(part) for part in place) or "the whole"
    if error["type"] == "extra_forbidden":
        allowed = sorted({name for known in _models_at(model, place[:-1]) for name in known.model_fields})
        return f"{key}: there is no such key; allowed are {', '.join(allowed)}."
    if error["type"] == "missing":
        return f"{key}: this key is required and missing."
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {_short(error['input'])} is not allowed: {message[0].lower()}{message[1:]}."


def _models_at(model: type[BaseModel], place: tuple[Any, ...]) -> list[type[BaseModel]]:
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

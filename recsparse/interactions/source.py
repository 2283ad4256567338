"""How to read somebody's files: which columns hold what, in which format."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Format = Literal["csv", "json", "parquet", "adjacency", "counted", "netflix", "matrix", "impressions"]
Kind = Literal["auto", "string", "integer", "float", "list"]


class Spec(BaseModel):
    """Base of every description: frozen, and an unknown key is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Spec):
    """One column of a file, by ``name``, by ``position`` (1 is the first) or as an ``sql`` expression.

    Expressions see the file's columns as ``c1``, ``c2``, ... and must be understood by DuckDB and Spark alike.
    """

    name: str | None = None
    position: Annotated[int, Field(ge=1)] | None = None
    sql: str | None = None
    type: Kind = "auto"
    """``auto``: integers if every value is one, else numbers if every value is one, else text."""
    separator: str | None = None
    """What stands between the values of a multi-valued column (``Drama|Comedy``); implies ``list``."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(way is not None for way in (self.name, self.position, self.sql)) != 1:
            raise ValueError("a column needs exactly one of name, position and sql")
        if (self.type == "list") != (self.separator is not None):
            raise ValueError("a column of type list needs a separator, and only that type has one")
        return self


def _column(value: Any) -> Any:
    """Accept ``"rating"`` for a name and ``3`` for a position; a separator alone means a list."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"position": value}
    if isinstance(value, dict) and "separator" in value:
        return {"type": "list", **value}
    return value


AnyColumn = Annotated[Column, BeforeValidator(_column)]


class Files(Spec):
    """Files of one layout. What is None is seen from the first lines (:mod:`recsparse.interactions.layout`)."""

    path: str = "."
    """A file, a glob or a directory, relative to where the data lie; inside a zip archive as well."""
    format: Format | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=4)] | None = None
    header: bool | None = None
    quote: str | None = None
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    where: str | None = None
    """An SQL condition over the columns ``c1``, ``c2``, ...; other lines are left out."""
    missing: str | None = None
    """In a ``matrix``, the number that means *not rated*."""


class Ratings(Files):
    """Files with one interaction a line."""

    user: AnyColumn = Column(name="user_id")
    item: AnyColumn = Column(name="item_id")
    value: AnyColumn | None = None
    time: AnyColumn | None = None
    time_unit: Literal["auto", "seconds", "milliseconds", "iso"] = "auto"
    ids: Literal["auto", "string"] = "auto"
    """``auto``: integers if every id is one, text if none is, refused if mixed. ``string``: text as it is."""


class Features(Files):
    """Files with one user or one item a line, and the columns worth keeping."""

    id: AnyColumn
    columns: dict[str, AnyColumn] = Field(default_factory=dict)


class Source(Spec):
    """Everything a dataset is built from."""

    ratings: Ratings = Ratings()
    users: Features | None = None
    items: Features | None = None

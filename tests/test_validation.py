from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from recsparse.errors import ConfigError
from recsparse.validation import validate


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = Field(default=1, ge=1)
    form: Literal["flat", "round"] = "flat"


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    part: str | Part = "none"
    parts: list[Part] = []


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "name: this key is required and missing."),
        ({"name": 3}, "name: 3 is not allowed: input should be a valid string."),
        ({"name": "a", "colour": 1}, "colour: there is no such key; allowed are name, part, parts."),
        ({"nam": "a"}, "nam: there is no such key; allowed are name, part, parts. (1 more like it.)"),
        ({"name": "a", "part": 3}, "part: 3 is not allowed: input should be a valid string."),
        ({"name": "a", "part": {"siz": 3}}, "part.siz: there is no such key; allowed are form, size."),
        (
            {"name": "a", "part": {"size": 0}},
            "part.size: 0 is not allowed: input should be greater than or equal to 1.",
        ),
        (
            {"name": "a", "parts": [{}, {"form": "square"}]},
            "parts.1.form: 'square' is not allowed: input should be 'flat' or 'round'.",
        ),
        ({"name": "a", "parts": 3}, "parts: 3 is not allowed: input should be a valid list."),
        (3, "the whole: 3 is not allowed: input should be a valid dictionary or instance of Whole."),
        (
            {"name": 1, "parts": [{"size": "many"}]},
            "parts.0.size: 'many' is not allowed: input should be a valid integer, unable to parse string as an "
            "integer. (1 more like it.)",
        ),
    ],
)
def test_one_sentence_names_the_key_the_place_and_what_is_allowed(data, sentence):
    with pytest.raises(ConfigError) as error:
        validate(Whole, data, "a.toml")
    assert str(error.value) == f"a.toml: {sentence}"


def test_a_long_value_is_cut():
    with pytest.raises(ConfigError, match=r"'x{50,}\.\.\. is not allowed") as error:
        validate(Whole, {"name": "a", "parts": "x" * 1000}, "a.toml")
    assert len(str(error.value)) < 200


def test_what_is_right_passes():
    assert validate(Whole, {"name": "a", "part": {"size": 2}}, "a.toml").part == Part(size=2)

"""Documents with a checksum of themselves."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsparse.errors import FormatError
from recsparse.tables.seal import FORMAT_VERSION, seal, unseal

FILE = Path("a-file")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
)
NAMES = st.text().filter(lambda name: name not in ("format", "format_version", "checksum"))


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_what_was_sealed_comes_back(document):
    read = unseal(json.dumps(seal(document), indent=2), FILE, "a document")
    assert {name: read[name] for name in document} == document
    assert read["format_version"] == FORMAT_VERSION


def test_no_letter_can_be_changed():
    text = json.dumps(seal({"rows": 60, "kept": True, "parts": [{"kind": "list", "bits": 3}]}))
    unseal(text, FILE, "a document")
    for place, letter in enumerate(text):
        for other in "07x":
            if other != letter:
                with pytest.raises(FormatError, match="a-file"):
                    unseal(text[:place] + other + text[place + 1 :], FILE, "a document")


@pytest.mark.parametrize("text", [None, 3, "null", "3", '"x"', "[]", "{}", "{", "[" * 100_000, '{"a":' * 990 + "1"])
def test_other_texts_are_refused(text):
    with pytest.raises(FormatError, match="a-file is not a document"):
        unseal(text, FILE, "a document")


def test_another_version_is_named_before_the_checksum_is_looked_at():
    text = json.dumps(seal({}) | {"format_version": 99})
    with pytest.raises(FormatError, match=f"version 99; this release reads {FORMAT_VERSION}"):
        unseal(text, FILE, "a document")
    with pytest.raises(FormatError, match=r"1\.5 is not a whole number"):
        unseal(json.dumps(seal({"rows": 1.5})), FILE, "a document")

"""What the house's docstrings say otherwise than these pages' parser: `Example:` and roles such as `:func:`."""

import re
from typing import Any

import griffe


class HouseStyle(griffe.Extension):
    """Examples are set as code, and what a role names as well."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = re.sub(r":[a-z]+:`~?(?:recsparse\.[a-z_.]*)?([^`]+)`", r"`\1`", text)

"""The house's docstrings say `Example:`; the parser of these pages knows the section as `Examples:`."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Rename the section, so that examples are set as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename it in one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)

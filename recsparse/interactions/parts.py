"""The split that a public dataset was published with."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from recsparse.errors import DataError
from recsparse.interactions.build import build
from recsparse.interactions.cards import load_card
from recsparse.interactions.download import Progress
from recsparse.interactions.fetch import fetch, locate_origin
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.protocols import TRAIN, VALIDATION
from recsparse.interactions.published import predefined
from recsparse.interactions.split import Split, block_of, labeller, whole_of
from recsparse.interactions.store import read


def published_split(
    name: str, *, from_path: Path | None = None, cache: Path | None = None, validation: float = 0.1, seed: int = 0,
    memory_limit: str | None = None, progress: Progress | None = None,
) -> Split:  # fmt: skip
    """Give the train, validation and test parts that a public dataset was published with.

    Args:
        name: the card's name.
        from_path: files the user already has.
        cache: see :func:`recsparse.interactions.fetch`.
        validation: where none was published, this share of each user's training interactions is drawn for it.
        seed: of that draw.
        memory_limit: as in :func:`recsparse.interactions.build`.
        progress: as there.

    Raises:
        DataError: the dataset has no published split in the form that was found.
        FetchError: it cannot be had.
    """
    card = load_card(name)
    root = fetch(name, cache=cache, from_path=from_path, progress=progress)
    origin = locate_origin(card, root)
    if not origin.has_parts:
        others = [f"{each.name}: {each.about}" for each in card.origins if each.has_parts]
        raise DataError(" ".join([f"{root} holds {name} as {origin.name}, without a published split.", *others,
                                  "Split it by a protocol instead."]))  # fmt: skip
    built: dict[str, Interactions] = {}
    with tempfile.TemporaryDirectory() as work:
        for part, where in origin.parts.items():
            changes = {key: value for key, value in where.model_dump().items() if value is not None}
            source = origin.read.model_copy(update={"ratings": origin.read.ratings.model_copy(update=changes)})
            built[part] = read(build(source, Path(work) / part, root=root, cleaning=card.cleaning,
                                     memory_limit=memory_limit, progress=progress))  # fmt: skip
    about: dict[str, Any] = {"protocol": "published", "seed": None, "options": {}}
    if "validation" not in built:
        train = built["train"]
        labels = labeller("random", whole_of(train), seed, {"validation": validation, "test": 0.0})(block_of(train))
        built |= {"train": train.select_entries(labels == TRAIN)}
        built |= {"validation": train.select_entries(labels == VALIDATION)}
        about |= {"seed": seed, "options": {"validation": validation}}
    return replace(predefined(built["train"], built["validation"], built["test"]), about=about)

"""The files a run's data come from, and how to see that they have changed."""

import glob
from dataclasses import dataclass
from pathlib import Path

from recsparse.config import Data
from recsparse.interactions import Cleaning, Ratings, Source, fetch, load_card
from recsparse.interactions.cards import Card
from recsparse.interactions.download import Progress
from recsparse.interactions.fetch import cache_directory, locate
from recsparse.pipeline.stages import digest_of


@dataclass(frozen=True)
class Files:
    """What to build from.

    Attributes:
        source: how to read the files.
        root: where its relative paths start.
        card: of the public dataset it is, if it is one.
        cleaning: what is asked for, else what the card says.
    """

    source: Source
    root: Path
    card: Card | None
    cleaning: Cleaning

    @property
    def digest(self) -> str:
        """Identify the files by name, size and time, and what is made of them."""
        parts = [part for part in (self.source.ratings, self.source.users, self.source.items) if part is not None]
        files = sorted({file for part in parts for file in _matching(self.root / part.path)})
        state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return digest_of(self.source.model_dump(mode="json"), self.cleaning.model_dump(mode="json"), state)


def find_files(data: Data, tell: Progress) -> Files:
    """Give what to build from, fetching a public dataset that is not here yet.

    Raises:
        FetchError: it cannot be had.
    """
    cleaning = data.cleaning or Cleaning()
    if (name := data.card) is None:
        source = data.source if isinstance(data.source, Source) else Source(ratings=Ratings(path=data.source))
        return Files(source, Path(), None, cleaning)
    card = load_card(name)
    root = fetch(name, from_path=data.from_path, progress=tell)
    return Files(locate(card, root), root, card, data.cleaning or card.cleaning)


def is_here(data: Data) -> bool:
    """Whether :func:`find_files` needs no network."""
    name = data.card
    return name is None or data.from_path is not None or (cache_directory() / name.replace(":", "-")).exists()


def _matching(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    return [path] if path.exists() else [Path(file) for file in glob.glob(str(path))]

"""Let pages link to files of the repository as they do on its own site: what `FOLDERS` hold is copied beside them.

Notebooks that `docs/render.py` has run are pages; without them the site is built all the same, with links to the files.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

RENDERED = "build/notebooks"
FOLDERS = ("pipelines", "notebooks", "benchmarks/results")


def _rendered(config: MkDocsConfig) -> list[Path]:
    return sorted((Path(config.config_file_path).parent / RENDERED).glob("*"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the notebooks that were run their place in the navigation."""
    pages = [f"notebooks/{path.name}" for path in _rendered(config) if path.suffix == ".md"]
    if pages and config.nav is not None:
        config.nav.insert(-1, {"Notebooks": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files to copy."""
    root = Path(config.config_file_path).parent
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files.append(File.generated(config, path.relative_to(root).as_posix(), abs_src_path=str(path)))
    for path in _rendered(config):
        files.append(File.generated(config, f"notebooks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that leave `docs` for a file that was added point at it."""
    up = "../" * (page.file.src_uri.count("/") + 1)
    for folder in FOLDERS:
        markdown = markdown.replace(f"]({up}{folder}/", f"]({up[3:]}{folder}/")
    return markdown

"""Install the built wheel in empty environments and run the README's quick start from outside the repository.

    python packaging/release_check.py [oldest] [newest] [--extras approximate,tune]

`oldest` takes the lower bound of every range in pyproject.toml, `newest` whatever the index has. Each is installed
without extras, then with them; `pip check` has to be clean after either.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = "approximate,spark,torchrec,tracking,tune"


def lower_bounds() -> list[str]:
    """The lowest version that each range allows, as constraints."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        *project["dependencies"],
        *(line for name in EXTRAS.split(",") for line in project["optional-dependencies"][name]),
    ]
    bounds = (
        (each.name, at.version) for each in map(Requirement, lines) for at in each.specifier if at.operator == ">="
    )
    return sorted({f"{name}=={version}" for name, version in bounds})


def quick_start() -> str:
    """The first Python example of the README."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    if found is None:
        raise SystemExit("README.md has no Python example.")
    return found[1]


def check(folder: Path, wheels: Path, ages: list[str], extras: str) -> None:
    """Raise at the first step that fails."""
    (folder / "quick_start.py").write_text(quick_start())
    (folder / "oldest.txt").write_text("\n".join(lower_bounds()) + "\n")
    wheel = next(wheels.glob("recsparse-*.whl"))
    stand_in = [str(path) for path in wheels.glob("fbgemm_gpu-*.whl") if "torchrec" in extras]
    for age in ages:
        home = folder / age
        venv.create(home, with_pip=True)
        python = str(home / "bin" / "python")
        pinned = ["-c", str(folder / "oldest.txt")] if age == "oldest" else []
        for wanted in ([str(wheel)], [*stand_in, f"{wheel}[{extras}]"]):
            for command in (
                [python, "-m", "pip", "install", "-q", *pinned, *wanted],
                [python, "-m", "pip", "check"],
                [python, "-P", str(folder / "quick_start.py")],
                [str(home / "bin" / "recsparse"), "data", "list"],
            ):
                sys.stdout.write(f"{age}: {' '.join(Path(word).name for word in command[:6])}\n")
                sys.stdout.flush()
                subprocess.run(command, cwd=home, check=True)  # noqa: S603 (interpreters that were made here)


def main() -> None:
    """Build, then check."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("ages", nargs="*", default=["oldest", "newest"], help="oldest, newest")
    read.add_argument("--extras", default=EXTRAS)
    asked = read.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in (ROOT, ROOT / "packaging" / "fbgemm-gpu"):
            command = [
                sys.executable,
                "-m",
                "build",
                "--no-isolation",
                "--wheel",
                "--outdir",
                str(folder / "dist"),
                str(source),
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        check(folder, folder / "dist", asked.ages, asked.extras)


if __name__ == "__main__":
    main()

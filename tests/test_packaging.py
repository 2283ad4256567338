import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import recsparse

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels and the source distribution, built with the tools that are installed."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed (the extra `dev`)")
    folder = tmp_path_factory.mktemp("dist")
    for source, kinds in [(ROOT, ["--sdist", "--wheel"]), (ROOT / "packaging" / "fbgemm-gpu", ["--wheel"])]:
        command = [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(folder), str(source)]
        subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


def test_the_wheel_carries_the_cards_and_the_types_and_no_tests(built: Path) -> None:
    (wheel,) = built.glob("recsparse-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    cards = {path.name for path in (ROOT / "datasets").glob("*.toml")}
    assert cards == {Path(name).name for name in names if name.startswith("recsparse/_datasets/")}
    assert "ml-100k.toml" in cards
    assert "recsparse/py.typed" in names
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"recsparse"}
    assert not [name for name in names if {"tests", "conftest.py", "__pycache__"} & set(name.split("/"))]
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "recsparse").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}


def test_the_source_distribution_can_build_and_test_itself(built: Path) -> None:
    (source,) = built.glob("recsparse-*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "datasets/ml-100k.toml", "tests/conftest.py", "Makefile"} <= names
    assert not [name for name in names if name.startswith((".venv", "runs", "dist")) or "__pycache__" in name]


def test_the_stand_in_is_empty_and_asks_for_the_cpu_build(built: Path) -> None:
    (wheel,) = built.glob("fbgemm_gpu-*.whl")
    archive = zipfile.ZipFile(wheel)
    assert all(name.startswith("fbgemm_gpu-1.8.0+cpu.dist-info/") for name in archive.namelist())
    (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    assert re.search(r"^Requires-Dist: fbgemm-gpu-cpu==1\.8\.0\b", archive.read(metadata).decode(), re.MULTILINE)


def test_the_version_is_said_once() -> None:
    assert recsparse.__version__ == PROJECT["project"]["version"]


def test_every_requirement_is_pinned_to_a_version_in_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(pin.name): pin.specifier for pin in map(Requirement, lines)}
    assert len(pinned) == len(lines)
    wanted = [*PROJECT["project"]["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
    for requirement in map(Requirement, [*wanted, "fbgemm-gpu==1.8.0"]):
        (pin,) = pinned[canonicalize_name(requirement.name)]
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{pin} of constraints.txt is outside of {requirement}"


def test_constraints_hold_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*(\+cpu)?", line)
    assert "torch==2.13.0\n" in (ROOT / "constraints.txt").read_text()  # any build of it


IMPORT_EACH = """
import importlib, pkgutil, sys, recsparse
for module in pkgutil.walk_packages(recsparse.__path__, "recsparse."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if error.name.partition(".")[0] not in sys.argv[1:]:
            raise
"""


def test_every_module_imports_but_for_optional_packages_that_are_not_installed() -> None:
    absent = [name for name in ("torchrec", "fbgemm_gpu", "pyspark") if find_spec(name) is None]
    command = [sys.executable, "-c", IMPORT_EACH, *absent]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_heavy_is_imported_by_the_package_or_its_doctor() -> None:
    code = "import sys, recsparse, recsparse.doctor; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert not {"torch", "numba", "pandas", "plotly", "pyspark", "torchrec", "sklearn"} & set(done.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("age", ["oldest", "newest"])
def test_the_wheel_runs_the_quick_start_in_an_empty_environment(age: str) -> None:
    command = [sys.executable, "packaging/release_check.py", age, "--extras", "approximate,tune"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("quick_start.py") == 2


# Make


def make(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")} | variables
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, check=False, capture_output=True, text=True
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What Make looks at, without the rest."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "packaging", tmp_path / "packaging")
    return tmp_path


def python(folder: Path, script: str) -> str:
    path = folder / "a-python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"PYTHON={path}"


def test_make_refuses_an_old_python_in_one_sentence(checkout: Path) -> None:
    done = make("demo", python(checkout, "exit 1"), folder=checkout)
    assert done.returncode != 0
    assert "recsparse needs Python 3.11 or newer" in done.stderr
    assert not (checkout / ".venv").exists()


def test_make_says_what_a_python_without_venv_lacks(checkout: Path) -> None:
    done = make("test", python(checkout, '[ "$1" = -c ]'), folder=checkout)
    assert done.returncode != 0
    assert "apt-get install python3-venv" in done.stderr


def test_make_installs_again_only_when_a_requirement_changed(checkout: Path) -> None:
    venv = checkout / ".venv"
    venv.mkdir()
    for stamp in (".made", ".installed", ".installed-dev"):
        (venv / stamp).touch()
    for target in ("demo", "lint"):
        assert "install" not in make("--dry-run", target, folder=checkout).stdout
    os.utime(checkout / "pyproject.toml", ns=(2**62, 2**62))
    for target in ("demo", "lint"):
        planned = make("--dry-run", target, folder=checkout).stdout
        assert "pip --disable-pip-version-check install -c constraints.txt" in planned
        assert "-m venv" not in planned


def test_make_lists_its_targets(checkout: Path) -> None:
    listed = make(folder=checkout).stdout
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert rules == {line.split()[0] for line in listed.splitlines()}
    assert {"demo", "test", "test-slow", "test-spark"} <= rules

import subprocess
import sys
from importlib.metadata import version

import pytest

from recsparse.cli import app

HEAVY = ("numpy", "pandas", "pyarrow", "torch", "duckdb", "numba", "scipy", "sklearn", "plotly", "pydantic")


def commands(group=None, path=()):
    """Every command line there is, as words."""
    for one in (group or app).registered_commands:
        yield (*path, (one.name or one.callback.__name__).replace("_", "-").strip("-"))
    for one in (group or app).registered_groups:
        yield from commands(one.typer_instance, (*path, one.name))


def test_help_needs_nothing_heavy():
    code = f"import recsparse.cli, sys; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_help_lists_every_command(say):
    said = say("--help")
    assert said.code == 0
    assert all(words[0] in said.out for words in commands())


@pytest.mark.parametrize("words", sorted(commands()), ids=" ".join)
def test_every_command_shows_an_example(say, words):
    said = say(*words, "--help")
    assert said.code == 0
    assert f"Example: recsparse {' '.join(words)}" in " ".join(said.out.split())


def test_version(say):
    assert say("--version").out.strip() == version("recsparse")


def test_no_command_shows_the_help(say):
    said = say()
    assert said.code == 2
    assert "Usage" in said.out
    assert "Error" not in said.err


def test_an_unknown_command_and_an_unknown_option(refused):
    assert "'trian'" in refused("trian", code=2)
    assert refused("split", "--sed", "1", code=2).endswith("See recsparse split --help.")


def test_a_traceback_only_where_it_is_asked_for(tmp_path):
    def run(*words):
        command = [sys.executable, "-m", "recsparse", *words, "inspect", str(tmp_path / "nothing")]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    plain, debug = run(), run("--debug")
    assert plain.returncode == debug.returncode == 1
    assert plain.stderr.startswith("Error: ")
    assert len(plain.stderr.splitlines()) == 1
    assert "Traceback" in debug.stderr
    assert "FormatError" in debug.stderr


def test_what_nobody_foresaw_is_one_sentence_too(say, monkeypatch):
    def broken():
        raise RuntimeError("of\nall things")

    monkeypatch.setattr("recsparse.doctor.check", broken)
    said = say("doctor")
    assert said.code == 70
    assert said.err == "Error: This is a defect of recsparse (RuntimeError: of all things); --debug shows where.\n"


def test_an_interrupted_command(say, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("recsparse.doctor.check", interrupted)
    said = say("doctor")
    assert said.code == 130
    assert "nothing half written" in said.err

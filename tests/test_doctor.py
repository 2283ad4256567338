import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from recsparse import doctor
from recsparse.doctor import Check, check

ROOT = Path(doctor.__file__).parents[1]
GIB = 2**30
SHOW = """
import dataclasses, json
from recsparse import doctor
print(json.dumps([dataclasses.asdict(check) for check in doctor.check()]))
"""
TORCH = """
import types
__version__ = "2.13.0+cpu"
version = types.SimpleNamespace(cuda=None)
cuda = types.SimpleNamespace(is_available=lambda: False)
class ones:
    def __init__(self, *shape): pass
    def mm(self, other): return self
    def sum(self): return 8
def tensor(values): return values
ops = types.SimpleNamespace(fbgemm=types.SimpleNamespace(
    asynchronous_complete_cumsum=lambda lengths: types.SimpleNamespace(tolist=lambda: [0, 2, 5])))
"""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with nothing installed."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


class Environment:
    """Packages that a test makes up, and what doctor says where only those are installed."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.packages, self.programs, self.python = folder / "packages", folder / "programs", python
        self.packages.mkdir()
        self.programs.mkdir()

    def install(self, name: str, version: str, *requires: str, module: str | None = None) -> None:
        information = self.packages / f"{name.replace('-', '_')}-{version}.dist-info"
        information.mkdir()
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            f"Version: {version}",
            *(f"Requires-Dist: {r}" for r in requires),
        ]
        (information / "METADATA").write_text("\n".join(lines) + "\n")
        if module is not None:
            (self.packages / f"{name.replace('-', '_').removesuffix('_cpu')}.py").write_text(module)

    def program(self, name: str, script: str) -> Path:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def says(self, **variables: str) -> dict[str, Check]:
        environment = {"PATH": str(self.programs), "PYTHONPATH": f"{self.packages}:{ROOT}", "HOME": str(self.packages)}
        done = subprocess.run(
            [self.python, "-P", "-c", SHOW], env=environment | variables, check=True, capture_output=True, text=True
        )
        assert done.stderr == ""
        return {row["name"]: Check(**row) for row in json.loads(done.stdout)}


@pytest.fixture
def environment(tmp_path: Path, bare_python: Path) -> Environment:
    return Environment(tmp_path, bare_python)


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    """What it says where the tests run."""
    return check()


def test_nothing_is_broken_where_the_tests_run(checks: list[Check]) -> None:
    assert [found.name for found in checks][:3] == ["python", "cores", "memory"]
    assert not [found for found in checks if found.status == "broken"]
    assert {found.name for found in checks if found.status == "missing"} <= {
        "fbgemm-gpu",
        "torchrec",
        "pyspark",
        "java",
    }
    assert all(bool(found.advice) == (found.status != "ok") for found in checks)


def test_a_bare_python_gets_a_whole_answer(environment: Environment) -> None:
    said = environment.says()
    assert list(said) == list(doctor._CHECKS)
    assert {name for name, found in said.items() if found.status == "missing"} == {
        *("fbgemm-gpu", "torchrec", "pyspark", "java")
    }
    for name in ("duckdb", "numba", "torch"):
        assert said[name].status == "broken"
        assert said[name].found == f"ModuleNotFoundError: No module named '{name}'"
    assert said["packages"].status == "broken"
    assert said["cache directory"].status == "broken"
    assert all(found.advice for found in said.values() if found.status != "ok")


def test_a_check_that_fails_is_a_line_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Check:
        raise RuntimeError("surprise")

    monkeypatch.setattr(doctor, "_CHECKS", {"odd": fail, "python": doctor._python})
    odd, python = check()
    assert odd == Check("odd", "broken", "RuntimeError: surprise", odd.advice)
    assert python.status == "ok"


# torch, fbgemm and torchrec


def test_torch_of_the_cpu_is_ok_and_of_cuda_without_a_gpu_a_warning(environment: Environment) -> None:
    environment.install("torch", "2.13.0+cpu", module=TORCH)
    said = environment.says()["torch"]
    assert (said.status, said.found) == ("ok", "2.13.0+cpu, CPU build")
    (environment.packages / "torch.py").write_text(TORCH.replace("cuda=None", "cuda='12.9'").replace("+cpu", ""))
    said = environment.says()["torch"]
    assert (said.status, said.found) == ("warning", "2.13.0, built for CUDA 12.9, no GPU")


def test_a_package_that_crashes_the_interpreter_is_named(environment: Environment) -> None:
    environment.install("torch", "2.13.0", module="import os, signal\nos.kill(os.getpid(), signal.SIGILL)")
    assert environment.says()["torch"].found == "crashed with SIGILL when tried"


def test_a_package_that_hangs_is_given_up(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.install("duckdb", "2.0.0", module="import time\ntime.sleep(60)")
    monkeypatch.syspath_prepend(environment.packages)
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(doctor, "_CHECKS", {"duckdb": doctor._duckdb})
    assert check()[0].found == "did not answer within 0.5 seconds"


def install_stand_in(environment: Environment) -> None:
    environment.install("fbgemm-gpu", "1.8.0+cpu", "fbgemm-gpu-cpu==1.8.0; platform_system == 'Linux'")


def test_the_tested_set_works(environment: Environment) -> None:
    environment.install("torch", "2.13.0+cpu", module=TORCH)
    environment.install("fbgemm-gpu-cpu", "1.8.0", module="")
    install_stand_in(environment)
    environment.install("torchrec", "1.8.0", module="import torch, fbgemm_gpu")
    said = environment.says()
    assert (said["fbgemm-gpu"].status, said["fbgemm-gpu"].found) == ("ok", "fbgemm-gpu-cpu 1.8.0")
    assert (said["torchrec"].status, said["torchrec"].found) == ("ok", "1.8.0")


def test_the_cuda_wheel_beside_a_cpu_torch_is_broken(environment: Environment) -> None:
    environment.install("torch", "2.13.0+cpu", module=TORCH)
    environment.install("fbgemm-gpu", "1.8.0", "numpy", module="raise OSError('libcudart.so.12: not found')")
    environment.install("torchrec", "1.8.0", module="import fbgemm_gpu")
    said = environment.says()
    assert said["fbgemm-gpu"].status == said["torchrec"].status == "broken"
    assert said["fbgemm-gpu"].found == "fbgemm-gpu 1.8.0 (CUDA) beside torch 2.13.0+cpu"
    assert "pip uninstall fbgemm-gpu" in said["fbgemm-gpu"].advice
    assert said["torchrec"].found == "1.8.0 does not import: OSError: libcudart.so.12: not found"


def test_both_wheels_of_fbgemm_in_one_place_are_broken(environment: Environment) -> None:
    environment.install("torch", "2.13.0", module=TORCH)
    environment.install("fbgemm-gpu", "1.8.0", module="")
    environment.install("fbgemm-gpu-cpu", "1.8.0", module="")
    said = environment.says()["fbgemm-gpu"]
    assert (said.status, said.found) == ("broken", "fbgemm-gpu 1.8.0 (CUDA) and fbgemm-gpu-cpu 1.8.0")
    assert "uninstall both" in said.advice


def test_a_stand_in_that_stands_for_nothing_is_broken(environment: Environment) -> None:
    install_stand_in(environment)
    assert environment.says()["fbgemm-gpu"].found == "the stand-in without fbgemm-gpu-cpu"


def test_the_cpu_wheel_alone_leaves_pip_check_unclean(environment: Environment) -> None:
    environment.install("torch", "2.13.0+cpu", module=TORCH)
    environment.install("fbgemm-gpu-cpu", "1.8.0", module="")
    said = environment.says()["fbgemm-gpu"]
    assert (said.status, said.found) == ("warning", "fbgemm-gpu-cpu 1.8.0, no stand-in")
    assert "./packaging/fbgemm-gpu" in said.advice


def test_an_operator_that_did_not_load_is_found_though_the_import_works(environment: Environment) -> None:
    environment.install("torch", "2.13.0+cpu", module=TORCH.replace("asynchronous_complete_cumsum", "other"))
    environment.install("fbgemm-gpu-cpu", "1.8.0", module="")
    install_stand_in(environment)
    said = environment.says()["fbgemm-gpu"]
    assert said.status == "broken"
    assert said.found.startswith("fbgemm-gpu-cpu 1.8.0 does not work: AttributeError:")
    assert "torch 2.13" in said.advice


@pytest.mark.parametrize(
    ("fbgemm", "found"), [("1.7.0", "1.8.0 with fbgemm 1.7.0"), (None, "1.8.0 without fbgemm")], ids=["other", "none"]
)
def test_torchrec_needs_the_same_release_of_fbgemm(environment: Environment, fbgemm: str | None, found: str) -> None:
    environment.install("torchrec", "1.8.0", module="")
    if fbgemm:
        environment.install("fbgemm-gpu-cpu", fbgemm, module="")
    said = environment.says()["torchrec"]
    assert (said.status, said.found) == ("broken", found)


# the other packages


def test_versions_are_held_against_what_recsparse_requires(environment: Environment) -> None:
    real = Path(__import__("packaging").__file__).parent
    (environment.packages / "packaging").symlink_to(real)
    wanted = ["numpy>=2.4,<3", "duckdb>=2.0,<3", "rich>=15", "pyspark>=4.1; extra == 'spark'"]
    environment.install("recsparse", "0.1.0", *wanted)
    environment.install("numpy", "1.26.4")
    environment.install("duckdb", "2.0.0")
    said = environment.says()["packages"]
    assert (said.status, said.found) == ("broken", "not installed: rich>=15; other than tested: numpy 1.26.4")
    assert "'rich>=15' 'numpy<3,>=2.4'" in said.advice
    environment.install("rich", "15.0.0")
    assert environment.says()["packages"].status == "warning"
    (environment.packages / "numpy-1.26.4.dist-info").rename(environment.packages / "numpy-2.4.6.dist-info")
    metadata = environment.packages / "numpy-2.4.6.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.26.4", "2.4.6"))
    assert environment.says()["packages"] == Check("packages", "ok", "recsparse 0.1.0 and the 3 packages it requires")


def test_an_older_duckdb_is_a_warning(environment: Environment) -> None:
    query = "sql = lambda text: __import__('types').SimpleNamespace(fetchall=lambda: [(42,)])"
    environment.install("duckdb", "1.4.1", module=f"__version__ = '1.4.1'\n{query}")
    said = environment.says()["duckdb"]
    assert (said.status, said.found) == ("warning", "1.4.1")


def test_kernels_that_no_directory_can_keep_are_explained(environment: Environment) -> None:
    locator = "RuntimeError(\"cannot cache function 'top_k': no locator available for file '/ro/topk.py'\")"
    environment.install("numba", "0.68.1", module=f"raise {locator}")
    said = environment.says()["numba"]
    assert said.status == "broken"
    assert "NUMBA_CACHE_DIR" in said.advice


def test_numba_without_its_compiler_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    said = doctor._numba("numba")
    assert said.status == "warning"
    assert "NUMBA_DISABLE_JIT" in said.advice


def test_spark_workers_must_run_this_python(environment: Environment) -> None:
    environment.install("pyspark", "4.3.0")
    other = environment.program("other", "echo 2.7 /usr")
    same = f"{sys.version_info.major}.{sys.version_info.minor}"
    elsewhere = environment.program("elsewhere", f"echo {same} /usr")
    for python, status in [("absent", "broken"), (other, "broken"), (elsewhere, "warning"), (environment.python, "ok")]:
        said = environment.says(PYSPARK_PYTHON=str(python))["pyspark"]
        assert said.status == status
        assert (status == "ok") != (f"PYSPARK_PYTHON={environment.python}" in said.advice)
    environment.program("python3", "echo 3.9 /usr")
    assert environment.says()["pyspark"].status == "ok"  # the engines tell Spark, which would take python3


@pytest.mark.parametrize(
    ("system", "machine", "python", "wheels"),
    [
        ("Linux", "x86_64", (3, 11), True),
        ("Linux", "aarch64", (3, 14), True),
        ("Linux", "riscv64", (3, 11), False),
        ("Linux", "x86_64", (3, 15), False),
        ("Darwin", "arm64", (3, 11), False),
    ],
)
def test_where_fbgemm_has_no_wheel_none_is_advised(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, python: tuple[int, int], wheels: bool
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda distribution: None)
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    monkeypatch.setattr(doctor.platform, "machine", lambda: machine)
    monkeypatch.setattr(doctor.sys, "version_info", (*python, 0, "final", 0))
    for look in (doctor._fbgemm, doctor._torchrec):
        said = look("it")
        assert (said.status, "pip install" in said.advice) == ("missing", wheels)


def test_what_no_look_can_find_is_said_where_it_matters_and_fits_a_screen(checks: list[Check]) -> None:
    notes = {found.name: found.note for found in checks if found.status == "ok"}
    for name, words in {
        "BLAS threads": ("single_threaded_blas",),
        "numba": ("prange", "for_ranges"),
        "torch": ("index_select", "CSR"),
        "fbgemm-gpu": ("Adam", "4 bytes an original row"),
        "torchrec": ("EmbeddingBagCollection", "compute_kernels=['fused']", "ITEP", "managed collisions", "row budget"),
        "pyspark": ("PYSPARK_PYTHON",),
    }.items():
        assert name not in notes or all(word in notes[name] for word in words)
    assert {"BLAS threads", "numba"} <= {name for name, note in notes.items() if note}
    assert len(checks) + sum(bool(found.advice) + bool(found.note) for found in checks) <= 24


@pytest.mark.parametrize(
    ("script", "status", "found"),
    [
        ("echo 'openjdk version \"17.0.15\" 2025-04-15' >&2", "ok", 'version "17.0.15" in PATH'),
        ("echo 'openjdk version \"25\" 2025-09-16' >&2", "ok", 'version "25" in PATH'),
        ("echo 'openjdk version \"11.0.2\" 2019-01-15' >&2", "broken", 'version "11.0.2" in PATH'),
        ("echo 'java version \"1.8.0_202\"' >&2", "broken", 'version "1.8.0_202" in PATH'),
        ("exit 1", "broken", "no Java that runs in PATH"),
    ],
)
def test_java_must_be_17_or_newer(environment: Environment, script: str, status: str, found: str) -> None:
    environment.program("java", script)
    said = environment.says()["java"]
    assert (said.status, said.found) == (status, found)
    home = environment.says(JAVA_HOME="/nowhere")["java"]  # JAVA_HOME comes before PATH, for Spark as for us
    assert (home.status, home.found) == ("missing", "no java in JAVA_HOME=/nowhere")


# the machine


def test_a_container_with_less_than_its_cores_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    look = doctor._control_group
    monkeypatch.setattr(doctor, "_control_group", lambda file: look(file, root=tmp_path))
    monkeypatch.setattr(doctor, "_usable_cores", lambda: 64)
    assert doctor._cores("cores").status == "ok"  # no limits told
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert doctor._cores("cores").status == "ok"
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    said = doctor._cores("cores")
    assert said.status == "warning"
    assert "only 2.5" in said.found
    assert "n_jobs=2" in said.advice


def test_little_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    look = doctor._control_group
    monkeypatch.setattr(doctor, "_control_group", lambda file: look(file, root=tmp_path))
    (tmp_path / "memory.max").write_text(f"{GIB}\n")
    said = doctor._memory("memory")
    assert (said.status, said.found) == ("warning", "1.0 GiB")
    (tmp_path / "memory.max").write_text("max\n")
    assert doctor._memory("memory").found != "1.0 GiB"


def test_more_blas_threads_than_cores_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = {"user_api": "blas", "internal_api": "openblas", "version": "0.3.30", "num_threads": 64}
    monkeypatch.setattr(doctor, "_probe", lambda code: {"pools": [pool]})
    monkeypatch.setattr(doctor, "_usable_cores", lambda: 2)
    said = doctor._blas("BLAS threads")
    assert (said.status, said.found) == ("warning", "openblas 0.3.30: 64 threads")
    assert "OMP_NUM_THREADS=2" in said.advice


@pytest.mark.parametrize(
    ("look", "variable"), [(doctor._cache_directory, "RECSPARSE_CACHE"), (doctor._temporary_directory, "TMPDIR")]
)
def test_a_directory_without_room_or_leave_to_write_is_found(
    look: Callable[[str], Check], variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSPARSE_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(doctor.tempfile, "gettempdir", lambda: os.environ["RECSPARSE_CACHE"])
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=20 * GIB))
    assert look("room") == Check("room", "ok", f"{tmp_path}/not/yet, 20.0 GiB free")
    assert not (tmp_path / "not").exists()
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=GIB // 2))
    said = look("room")
    assert said.status == "warning"
    assert variable in said.advice
    (tmp_path / "not").write_text("a file")
    said = look("room")
    assert said.status == "broken"
    assert variable in said.advice

"""What is installed here, what works, and what to do about the rest.

Nothing heavy is imported into this process: whatever may be broken is tried in a process of its own, so that a
package that crashes the interpreter is a line in the answer and not the end of it.
"""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "warning", "missing", "broken"]

GIB = 2**30
PROBE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at.

    Attributes:
        name: what was looked at.
        status: ``ok``; ``warning`` (works, with a trap); ``missing`` (optional, not there); ``broken``.
        found: what is there, in a few words.
        advice: what to do, as one sentence; empty when there is nothing to do.
        note: a trap of what is there that no look can find, with the way round it; empty when there is none.
    """

    name: str
    status: Status
    found: str
    advice: str = ""
    note: str = ""


class _ProbeError(Exception):
    """What the other process died of, in one line."""


def check() -> list[Check]:
    """Look at everything recsparse runs on; never raises.

    The order is fixed: the machine, the required packages, the optional ones. Takes a few seconds, nearly all of it
    importing torch and torchrec in processes of their own.

    >>> from recsparse import doctor
    >>> doctor.check()[0].name
    'python'
    """
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(_guarded, _CHECKS, _CHECKS.values()))


def _guarded(name: str, look: Callable[[str], Check]) -> Check:
    try:
        return look(name)
    except _ProbeError as problem:
        again = f"`{sys.executable} -m pip install --force-reinstall -c constraints.txt -e .`"
        return Check(name, "broken", str(problem), f"Reinstall what is required here: {again} in a checkout.")
    except Exception as problem:
        return Check(
            name, "broken", f"{type(problem).__name__}: {problem}", "Please report this as a bug of recsparse."
        )


def _run(*command: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine without input; what it says and how it ended is the answer."""
    return subprocess.run(  # noqa: S603 (interpreters and java, found by their own settings)
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PROBE_SECONDS,
        check=False,
    )


def _probe(code: str) -> dict[str, Any]:
    """Run ``code``, whose last printed line is JSON, where it sees the modules that this process would see."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    environment = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    try:
        done = _run(sys.executable, "-P", "-c", code, environment=environment)
    except subprocess.TimeoutExpired:
        raise _ProbeError(f"did not answer within {PROBE_SECONDS} seconds") from None
    if done.returncode < 0:
        raise _ProbeError(f"crashed with {signal.Signals(-done.returncode).name} when tried")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise _ProbeError(lines[-1][:300])
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _release(version: str) -> tuple[int, ...]:
    """Give the leading numbers of a version, ``(2, 13)`` of ``2.13.0+cpu``."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


# The machine


def _python(name: str) -> Check:
    language = f"{platform.python_implementation()} {platform.python_version()}"
    return Check(name, "ok", f"{language} on {platform.system()} {platform.machine()}, {sys.prefix}")


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _control_group(file: str, *, root: Path = Path("/sys/fs/cgroup")) -> str | None:
    """Read a container's limit (control groups, version 2)."""
    try:
        return (root / file).read_text().strip()
    except OSError:
        return None


def _cores(name: str) -> Check:
    cores, total = _usable_cores(), os.cpu_count() or 1
    found = f"{cores} of {total} usable"
    quota, _, period = (_control_group("cpu.max") or "max").partition(" ")
    if quota != "max" and (share := int(quota) / int(period)) < cores:
        advice = (
            f"Pass n_jobs={max(1, int(share))} (or pin the process with taskset) or the extra threads get in the way."
        )
        return Check(name, "warning", f"{found}, but the container may use only {share:g}", advice)
    return Check(name, "ok", found)


def _memory(name: str) -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _control_group("memory.max") or "max"
    usable = min(total, int(limit)) if limit != "max" else total
    if usable < 4 * GIB:
        advice = "Give it 4 GiB or more, or keep to data where 8 bytes x items squared (EASE) and the tables fit."
        return Check(name, "warning", f"{usable / GIB:.1f} GiB", advice)
    return Check(name, "ok", f"{usable / GIB:.1f} GiB")


def _nearest_directory(path: Path) -> Path:
    """Give ``path`` or the nearest ancestor that exists."""
    return next(ancestor for ancestor in (path, *path.parents) if ancestor.exists())


def _room(name: str, path: Path, need: int, setting: str) -> Check:
    existing = _nearest_directory(path)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        advice = f"Make it writable, or set {setting} to a directory that is."
        return Check(name, "broken", f"{path} cannot be written", advice)
    free = shutil.disk_usage(existing).free
    found = f"{path}, {free / GIB:.1f} GiB free"
    if free < need:
        return Check(name, "warning", found, f"Free some space ({need / GIB:.0f} GiB is comfortable) or set {setting}.")
    return Check(name, "ok", found)


def _cache_directory(name: str) -> Check:
    from platformdirs import user_cache_path  # noqa: PLC0415 (may be what is missing)

    path = Path(os.environ.get("RECSPARSE_CACHE") or user_cache_path("recsparse"))
    return _room(name, path, 1 * GIB, "RECSPARSE_CACHE")


def _temporary_directory(name: str) -> Check:
    return _room(name, Path(tempfile.gettempdir()), 4 * GIB, "TMPDIR")


def _blas(name: str) -> Check:
    answer = _probe(
        "import json, numpy, scipy.linalg, threadpoolctl\n"
        "print(json.dumps({'pools': [p for p in threadpoolctl.threadpool_info() if p['user_api'] == 'blas']}))"
    )
    cores = _usable_cores()
    found = ", ".join(
        f"{pool['internal_api']} {pool['version']}: {pool['num_threads']} threads" for pool in answer["pools"]
    )
    if any(pool["num_threads"] > cores for pool in answer["pools"]):
        return Check(
            name, "warning", found, f"Set OMP_NUM_THREADS={cores} and OPENBLAS_NUM_THREADS={cores}, the usable cores."
        )
    note = "Inside threads of your own, nested BLAS threads cost up to 100x: recsparse.parallel.single_threaded_blas()."
    return Check(name, "ok", found or "none that threadpoolctl knows", note=note)


# The required packages


def _packages(name: str) -> Check:
    try:
        from packaging.requirements import Requirement  # noqa: PLC0415 (may be what is missing)

        wanted = [Requirement(line) for line in metadata.requires("recsparse") or []]
    except metadata.PackageNotFoundError:
        advice = "In a checkout run `pip install -c constraints.txt -e .`, so that versions can be checked."
        return Check(name, "warning", "recsparse is imported from a folder, not installed", advice)
    except ImportError:
        return Check(name, "broken", "`packaging` is not installed", "Install recsparse with pip, in this environment.")
    required = [
        requirement for requirement in wanted if not requirement.marker or requirement.marker.evaluate({"extra": ""})
    ]
    absent = [str(requirement) for requirement in required if _version(requirement.name) is None]
    other = [
        (f"{requirement.name} {version}", str(requirement))
        for requirement in required
        if (version := _version(requirement.name)) and not requirement.specifier.contains(version, prereleases=True)
    ]
    if not absent and not other:
        return Check(name, "ok", f"recsparse {_version('recsparse')} and the {len(required)} packages it requires")
    found = [f"not installed: {', '.join(absent)}"] * bool(absent)
    found += [f"other than tested: {', '.join(have for have, _ in other)}"] * bool(other)
    fix = " ".join(f"'{line}'" for line in absent + [line for _, line in other])
    return Check(name, "broken" if absent else "warning", "; ".join(found), f"`{sys.executable} -m pip install {fix}`.")


def _duckdb(name: str) -> Check:
    answer = _probe(
        "import json, duckdb\n"
        "assert duckdb.sql('select 6 * 7').fetchall() == [(42,)]\n"
        "print(json.dumps({'version': duckdb.__version__}))"
    )
    if _release(answer["version"]) < (2, 0):
        return Check(
            name, "warning", answer["version"], "`pip install 'duckdb>=2.0,<3'`: older releases were not tried."
        )
    return Check(name, "ok", answer["version"])


def _numba(name: str) -> Check:
    try:
        answer = _probe(
            "import json, numba, recsparse.kernels.topk as kernels\n"
            "assert numba.njit(nogil=True)(lambda x: x + 1)(1) == 2\n"
            "cached = [f.stats.cache_path for f in vars(kernels).values() if hasattr(f, 'stats')]\n"
            "print(json.dumps({'version': numba.__version__, 'cache': cached[0] if cached else 'none'}))"
        )
    except _ProbeError as problem:
        if "cannot cache function" in str(problem):
            advice = "Set NUMBA_CACHE_DIR to a directory that can be written: compiled kernels are kept there."
            return Check(name, "broken", "no directory to keep compiled kernels in can be written", advice)
        raise
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in {"", "0"}:
        return Check(
            name, "warning", f"{answer['version']}, JIT off", "Unset NUMBA_DISABLE_JIT: kernels run 100x slower."
        )
    note = "prange compiles slowly and fights BLAS threads: nogil kernels through recsparse.parallel.for_ranges()."
    return Check(name, "ok", f"{answer['version']}, kernels kept in {answer['cache']}", note=note)


def _torch(name: str) -> Check:
    answer = _probe(
        "import json, torch\n"
        "assert float(torch.ones(2, 2).mm(torch.ones(2, 2)).sum()) == 8\n"
        "print(json.dumps({'version': str(torch.__version__), 'cuda': torch.version.cuda,"
        " 'device': torch.cuda.is_available()}))"
    )
    if answer["cuda"] and not answer["device"]:
        advice = "It works, but a CPU build of the same version is gigabytes smaller (and fbgemm-gpu-cpu goes with it)."
        return Check(name, "warning", f"{answer['version']}, built for CUDA {answer['cuda']}, no GPU", advice)
    note = "On CPU there is no index_select on CSR tensors: look rows up in a packed table, table.lookup(ids)."
    found = f"{answer['version']}, {'CUDA ' + answer['cuda'] if answer['cuda'] else 'CPU build'}"
    return Check(name, "ok", found, note=note)


# The optional packages

_STAND_IN = "`pip install -c constraints.txt ./packaging/fbgemm-gpu '.[torchrec]'` in a checkout"
_FBGEMM_MACHINES = {"x86_64", "aarch64"}
_FBGEMM_NEWEST_PYTHON = (3, 14)


def _how_to_get_torchrec() -> str:
    """Say how, where there are wheels, and that there are none where there are none."""
    wheels = platform.system() == "Linux" and platform.machine() in _FBGEMM_MACHINES
    if wheels and sys.version_info[:2] <= _FBGEMM_NEWEST_PYTHON:
        return f"Only sharded training, plans and the FBGEMM export need it, 1 GB with torch: {_STAND_IN}."
    newest = ".".join(map(str, _FBGEMM_NEWEST_PYTHON))
    return (
        f"fbgemm-gpu-cpu has wheels for Linux only (x86-64, aarch64; Python to {newest}); "
        "everything but sharded training, plans and the FBGEMM export works here."
    )


def _is_stand_in(distribution: metadata.Distribution) -> bool:
    """Tell the empty ``fbgemm-gpu`` that depends on ``fbgemm-gpu-cpu`` from the CUDA build of that name."""
    return any(re.match(r"fbgemm[-_.]gpu[-_.]cpu\b", line) for line in distribution.requires or [])


def _fbgemm_conflict() -> tuple[str, str] | None:
    """Say what is found and what to do when the installed distributions cannot give a working ``fbgemm_gpu``."""
    cpu, named, torch = _version("fbgemm-gpu-cpu"), _version("fbgemm-gpu"), _version("torch") or "unknown"
    stand_in = named is not None and _is_stand_in(metadata.distribution("fbgemm-gpu"))
    if stand_in:
        return None if cpu else ("the stand-in without fbgemm-gpu-cpu", f"Install what it stands for: {_STAND_IN}.")
    if named and cpu:
        advice = f"Both write the module fbgemm_gpu: uninstall both, then {_STAND_IN}."
        return f"fbgemm-gpu {named} (CUDA) and fbgemm-gpu-cpu {cpu}", advice
    if named and "+cpu" in torch:
        advice = f"The CUDA build does not load beside a CPU torch: `pip uninstall fbgemm-gpu`, then {_STAND_IN}."
        return f"fbgemm-gpu {named} (CUDA) beside torch {torch}", advice
    return None


def _fbgemm(name: str) -> Check:
    cpu, named = _version("fbgemm-gpu-cpu"), _version("fbgemm-gpu")
    if not cpu and not named:
        return Check(name, "missing", "not installed", _how_to_get_torchrec())
    if conflict := _fbgemm_conflict():
        return Check(name, "broken", *conflict)
    found = f"fbgemm-gpu-cpu {cpu}" if cpu else f"fbgemm-gpu {named} (CUDA)"
    try:
        # An operator, since importing the module hides that its library did not load.
        _probe(
            "import json, torch, fbgemm_gpu\n"
            "lengths = torch.tensor([2, 3])\n"
            "assert torch.ops.fbgemm.asynchronous_complete_cumsum(lengths).tolist() == [0, 2, 5]\n"
            "print(json.dumps({}))"
        )
    except _ProbeError as problem:
        advice = f"Take the release made for torch {_version('torch')} (1.8 for torch 2.13): {_STAND_IN}."
        return Check(name, "broken", f"{found} does not work: {problem}", advice)
    if not named:
        return Check(name, "warning", f"{found}, no stand-in", f"pip finds torchrec's requirement unmet: {_STAND_IN}.")
    note = (
        "On CPU it has SGD and row-wise Adagrad, no Adam; its pruned lookup's remap takes 4 bytes an original row, "
        "a packed table's 1.06 bits."
    )
    return Check(name, "ok", found, note=note)


def _torchrec(name: str) -> Check:
    version, fbgemm = _version("torchrec"), _version("fbgemm-gpu-cpu") or _version("fbgemm-gpu")
    if not version:
        return Check(name, "missing", "not installed", _how_to_get_torchrec())
    if not fbgemm:
        return Check(name, "broken", f"{version} without fbgemm", f"Install its kernels: {_STAND_IN}.")
    if _release(version) != _release(fbgemm):
        advice = f"Take the same release of both: {_STAND_IN}."
        return Check(name, "broken", f"{version} with fbgemm {fbgemm}", advice)
    try:
        _probe("import json, torchrec\nprint(json.dumps({}))")
    except _ProbeError as problem:
        advice = f"Mend fbgemm-gpu first if it is broken, else reinstall: {_STAND_IN}."
        return Check(name, "broken", f"{version} does not import: {problem}", advice)
    note = (
        "On CPU: row-wise EmbeddingCollection, not EmbeddingBagCollection; planners with compute_kernels=['fused']; "
        "a row budget, not ITEP or managed collisions."
    )
    return Check(name, "ok", version, note=note)


def _java(name: str) -> Check:
    home = os.environ.get("JAVA_HOME")
    where = f"JAVA_HOME={home}" if home else "PATH"
    advice = "Only PySpark needs it: install a Java 17 runtime (Debian: openjdk-17-jre-headless), set JAVA_HOME to it."
    java = shutil.which(str(Path(home, "bin", "java")) if home else "java")
    if not java:
        return Check(name, "missing", f"no java in {where}", advice)
    said = _run(java, "-version")
    release = re.search(r'version "(\d+)[^"]*"', said.stderr + said.stdout)
    if not release or int(release[1]) < 17:
        return Check(name, "broken", f"{release[0] if release else 'no Java that runs'} in {where}", advice)
    return Check(name, "ok", f"{release[0]} in {where}")


def _pyspark(name: str) -> Check:
    version = _version("pyspark")
    if not version:
        return Check(name, "missing", "not installed", "Only Spark needs it, 0.8 GB: `pip install 'recsparse[spark]'`.")
    if _release(version) < (4, 1):
        return Check(name, "warning", version, "`pip install 'recsparse[spark]'`: releases before 4.1 were not tried.")
    worker = os.environ.get("PYSPARK_PYTHON") or sys.executable  # recsparse sets it where nobody else has
    set_it = f"Unset PYSPARK_PYTHON, or set PYSPARK_PYTHON={sys.executable}: Spark's workers must run this Python."
    program = shutil.which(worker)
    if not program:
        return Check(name, "broken", f"{version}, its workers' Python, {worker}, is not there", set_it)
    theirs = _run(program, "-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.prefix)").stdout.strip()
    ours = f"{sys.version_info.major}.{sys.version_info.minor} {sys.prefix}"
    if theirs.split()[:1] != ours.split()[:1]:
        return Check(name, "broken", f"{version}, workers run Python {theirs}, not {ours}", set_it)
    if theirs != ours:
        return Check(name, "warning", f"{version}, workers run another environment, {program}", set_it)
    note = "On a cluster PYSPARK_PYTHON must name the executors' Python, with recsparse installed there."
    return Check(name, "ok", f"{version}, workers run {program}", note=note)


_CHECKS: dict[str, Callable[[str], Check]] = {
    "python": _python,
    "cores": _cores,
    "memory": _memory,
    "cache directory": _cache_directory,
    "temporary directory": _temporary_directory,
    "packages": _packages,
    "BLAS threads": _blas,
    "duckdb": _duckdb,
    "numba": _numba,
    "torch": _torch,
    "fbgemm-gpu": _fbgemm,
    "torchrec": _torchrec,
    "pyspark": _pyspark,
    "java": _java,
}

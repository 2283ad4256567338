"""What every test may use: real data when it is there, and the same examples in every run of a machine's."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline, since the first example may compile kernels; the same examples on every run of CI, so that a change fails
# only on its own account.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

os.environ.setdefault("SPARK_CONF_DIR", str(Path(__file__).parent / "spark"))


def why_no_spark() -> str | None:
    """Say what Spark lacks here, or None."""
    if find_spec("pyspark") is None:
        return "PySpark is not installed (the extra `spark`)"
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home, "bin", "java")) if home else "java")
    if java is None or subprocess.run([java, "-version"], check=False, capture_output=True).returncode:
        return "no Java runtime (17 or newer)"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep Spark's tests on one worker, as one JVM is enough, and skip them where Spark cannot run."""
    spark = [item for item in items if item.get_closest_marker("spark")]
    reason = why_no_spark() if spark else None
    for item in spark:
        item.add_marker(pytest.mark.xdist_group("spark"))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets that RECSPARSE_DATA names (ml-1m, gowalla, ...), or skip."""
    folder = os.environ.get("RECSPARSE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("RECSPARSE_DATA names no folder of real data sets")
    return Path(folder)

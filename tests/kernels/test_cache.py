"""Kept code of kernels is not used once a file it was made of has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import recsparse

REFINE = """
import numpy as np
from recsparse.kernels.refine import refine_bits
out = np.zeros(1, dtype=np.uint8)
refine_bits(np.zeros(9, dtype=np.uint8), 1, 8, 1, 1, out)
print(out[0], sum(refine_bits.stats.cache_hits.values()))
"""


def test_a_changed_helper_is_compiled_into_its_callers_again(tmp_path):
    package = Path(recsparse.__file__).parent
    copy = shutil.copytree(package, tmp_path / "recsparse", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop("NUMBA_CACHE_DIR", None)

    def run():
        command = [sys.executable, "-P", "-c", REFINE]
        return subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    assert run() == "0 0\n"
    assert run() == "0 1\n"  # its code was kept
    helper = copy / "kernels" / "bits.py"
    source = helper.read_text()
    changed = source.replace("return (load64(buffer, at >> 3) >>", "return (~load64(buffer, at >> 3) >>")
    assert changed != source
    helper.write_text(changed)
    assert run() == "255 0\n"

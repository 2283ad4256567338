"""One file a training run: what it needs to go on after a kill as if nothing had happened."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from safetensors import SafetensorError, safe_open

from recsparse.errors import ConfigError, FormatError
from recsparse.files import atomic_file
from recsparse.models.settings import plain
from recsparse.tensors import save_tensors

Arrays = dict[str, npt.NDArray[Any]]


def training_digest(params: dict[str, Any], *matrices: sp.csr_array) -> str:
    """Identify a run by its settings, but for ``n_jobs``, and all it learns from: SHA-256 of both."""
    settings = {name: value for name, value in params.items() if name != "n_jobs"}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=plain).encode())
    for matrix in matrices:
        for part in (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data):
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def write_checkpoint(path: Path, arrays: Arrays, progress: dict[str, Any], digest: str) -> None:
    """Replace the checkpoint at ``path``, whole or not at all."""
    with atomic_file(path) as partial:
        save_tensors(arrays, partial, metadata={"progress": json.dumps(progress), "digest": digest})


def read_checkpoint(path: Path, digest: str) -> tuple[Arrays, dict[str, Any]] | None:
    """Read what :func:`write_checkpoint` wrote; None where there is nothing yet.

    Raises:
        FormatError: the file is damaged.
        ConfigError: it belongs to other settings or other data.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        progress: dict[str, Any] = json.loads(metadata["progress"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise FormatError(f"The checkpoint {path} is damaged ({error!r}); delete it to start again.") from error
    if metadata["digest"] != digest:
        raise ConfigError(f"The checkpoint {path} is of other settings or other data; delete it or name another.")
    return arrays, progress

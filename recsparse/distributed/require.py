"""Whether torchrec is here, and what to do if it is not."""

from importlib.util import find_spec

from recsparse.errors import ConfigError


def require_torchrec() -> None:
    """Refuse to go on without torchrec.

    Raises:
        ConfigError: torchrec or FBGEMM is not installed; the message says how to get it.
    """
    for name in ("torchrec", "fbgemm_gpu"):
        if find_spec(name) is None:
            raise ConfigError(
                f"Sharded training and plans need {name}, which is not installed; on Linux "
                "`pip install packaging/fbgemm-gpu 'recsparse[torchrec]'` gets it (`recsparse doctor` says more)."
            )

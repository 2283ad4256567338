"""``python -m recsparse``."""

from recsparse.cli import main

main()

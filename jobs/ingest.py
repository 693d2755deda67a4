"""spark-submit jobs/ingest.py: bring a click log into a table of sessions (--help lists the flags)."""

import sys
from pathlib import Path

# Also runs from a checkout that is not installed: the package lies beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib.cli import ingest_main  # noqa: E402

if __name__ == "__main__":
    ingest_main()

"""spark-submit jobs/train.py: train the experts that score sessions (--help lists the flags)."""

import sys
from pathlib import Path

# Also runs from a checkout that is not installed: the package lies beside this folder.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib.cli import train_main  # noqa: E402

if __name__ == "__main__":
    train_main()

"""The `spark-submit` of printed commands: one that can be pasted where the environment is not active."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["launcher"]

_NAME = "spark-submit"


def launcher() -> str:
    """`spark-submit`, or where the PATH has none, the one beside this Python."""
    beside = Path(sys.executable).parent / _NAME
    if shutil.which(_NAME) or not beside.is_file():
        return _NAME
    here = Path.cwd()
    return shlex.quote(os.path.relpath(beside, here) if beside.is_relative_to(here) else str(beside))

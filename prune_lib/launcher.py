"""The `spark-submit` and the jobs of printed commands: they can be pasted as they are."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["job_script", "launcher"]

_NAME = "spark-submit"


def launcher() -> str:
    """`spark-submit` where the PATH's is the one beside this Python, else that one, where there is one."""
    beside = Path(sys.executable).parent / _NAME
    on_path = shutil.which(_NAME)
    if not beside.is_file() or (on_path and Path(on_path).resolve() == beside.resolve()):
        return _NAME
    return _from_here(beside)


def job_script(name: str) -> str:
    """`jobs/NAME.py`: beside the running job where that is one of a checkout's, else as the README has it."""
    running = Path(sys.argv[0] or ".").absolute()
    script = running.parent / f"{name}.py"
    if running.parent.name != "jobs" or not script.is_file():
        return f"jobs/{name}.py"
    return _from_here(script)


def _from_here(file: Path) -> str:
    here = Path.cwd()
    return shlex.quote(os.path.relpath(file, here) if file.is_relative_to(here) else str(file))

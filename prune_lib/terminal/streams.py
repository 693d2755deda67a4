"""The user's own streams, behind spark-submit.

spark-submit runs Python as a child of its JVM, takes stdout and stderr together through one pipe, and copies
what comes out to its own stdout. Log lines would end up among the results, `--json` would not be alone on
stdout, and no stderr would ever look like a terminal. The parent's own stderr is there under /proc, where
there is a /proc (Linux); elsewhere everything stays on stdout, as spark-submit has it.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

__all__ = ["own_stderr", "stdout_is_terminal"]

_SUBMIT = b"org.apache.spark.deploy.SparkSubmit"


def own_stderr(clean: bool = False) -> bool:
    """Send this process's stderr, and that of what it starts, to where spark-submit's own goes.

    Args:
        clean: stdout must hold results only, so that even a file is written to beside the JVM. Without need
            that is left: the JVM writes at a place of its own, and would write over our lines.

    Returns:
        Whether it was done; False also where there was nothing to do.
    """
    theirs = _of_submit()
    if theirs is None:
        return False
    try:
        target, results = os.stat(theirs / "2"), os.stat(theirs / "1")
        if os.path.samestat(target, os.fstat(2)):
            return False
        if os.path.samestat(target, results) and not stat.S_ISCHR(target.st_mode):
            return False  # `2>&1`: the user wants both in one place
        if stat.S_ISREG(target.st_mode) and not clean:
            return False
        opened = os.open(theirs / "2", os.O_WRONLY | os.O_APPEND | os.O_NOCTTY)
    except OSError:  # another user's process, a socket
        return False
    sys.stderr.flush()
    os.dup2(opened, 2)
    os.close(opened)
    return True


def stdout_is_terminal() -> bool:
    """Whether stdout is a terminal that knows colours; spark-submit's own, where it is between."""
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return False
    theirs = _of_submit()
    if theirs is None:
        return sys.stdout.isatty()
    try:
        opened = os.open(theirs / "1", os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.isatty(opened)
    finally:
        os.close(opened)


def _of_submit() -> Path | None:
    """The streams of the spark-submit that started us and has put ours into one pipe."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return None
    parent = Path(f"/proc/{os.getppid()}")
    try:
        own = os.fstat(1)
        if not stat.S_ISFIFO(own.st_mode) or _SUBMIT not in (parent / "cmdline").read_bytes():
            return None
    except OSError:
        return None
    return parent / "fd"

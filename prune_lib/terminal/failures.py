"""What is said of a failure: one paragraph, the cause and what to do; the full trace goes to a file."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_lib.errors import EnvironmentProblem, PruneError
from prune_lib.redaction import redacted

if TYPE_CHECKING:
    from prune_lib.settings.job import JobSettings, JobText

__all__ = ["Failure", "failure_of", "say"]

_WIDTH = 100

# Which extra of the package brings what; a machine that only imports the library has none of them.
_EXTRAS = {
    "pyspark": "spark",
    "delta": "spark",
    "graphframes": "spark",
    "numba": "spark",
    "sklearn": "spark",
    "torch": "experts",
    "safetensors": "experts",
    "petastorm": "experts",
    "mlflow": "tracking",
    "altair": "report",
    "vl_convert": "report",
    "jinja2": "report",
    "umap": "report",
    "ir_measures": "evaluation",
    "matplotlib": "evaluation",
    "scipy": "evaluation",
    "tabulate": "evaluation",
}

# What a failure's text says about a cause that the user can do something about.
_HINTS = (
    (
        ("java heap space", "gc overhead limit", "outofmemoryerror"),
        "Spark ran out of memory: give it more with `spark-submit --driver-memory 8g` (local runs) or larger "
        "executors.",
    ),
    (
        (
            "memoryerror",
            "python worker exited unexpectedly",
            "cannot allocate memory",
            "bad_alloc",
            "failed to map segment",
        ),
        "A Python worker seems to have run out of memory: give it more (spark.executor.pyspark.memory, where "
        "that is set; spark.executor.memoryOverhead on a cluster), fewer tasks beside it "
        "(spark.executor.cores), or a smaller --batch-size.",
    ),
    (
        ("no space left on device", "disk quota exceeded"),
        "The disk is full: free some space, or point Spark's scratch folder (SPARK_LOCAL_DIRS) and "
        "--workspace to a larger disk.",
    ),
    (("permission denied", "accesscontrolexception"), "Check the rights on the folders involved."),
)


@dataclass(frozen=True)
class Failure:
    """A failure, ready to be said.

    Attributes:
        kind: the error's class, or Interrupted.
        message: for people.
        exit_code: of the process.
        trace: to be printed above the message; empty where it is in a file, or of no use.
    """

    kind: str
    message: str
    exit_code: int
    trace: str = ""

    def record(self) -> dict[str, Any]:
        """What --json says of it."""
        return {"error": {"kind": self.kind, "message": self.message, "exit_code": self.exit_code}}


def failure_of(
    about: JobText,
    error: BaseException,
    settings: JobSettings | None,
    lines: Iterable[str],
    interrupted: bool,
) -> Failure:
    """Put a failure into words.

    Args:
        about: the job.
        error: what was raised.
        settings: of the run; None where they were not read.
        lines: our log, for the file of a failure that nobody foresaw.
        interrupted: whether Ctrl-C was pressed, whatever came of it.
    """
    if interrupted or isinstance(error, KeyboardInterrupt):
        return Failure("Interrupted", f"interrupted. {about.interrupted}".rstrip(), 130)
    verbose = settings is not None and settings.verbose
    # Whatever a library says of an address, its password is not repeated.
    trace = redacted("".join(traceback.format_exception(error))) if verbose else ""
    known = error if isinstance(error, PruneError) else _missing_package(error)
    if known is not None:
        return Failure(type(known).__name__, redacted(str(known)), known.exit_code, trace)
    message = redacted(_unexpected(about.name, error, settings, lines))
    return Failure(type(error).__name__, message, 1, trace)


def say(name: str, failure: Failure) -> None:
    """One paragraph on stderr; lines of a list stay lines."""
    kind = "" if failure.exit_code == 130 else "error: "
    wrapped = [
        textwrap.fill(
            part,
            _WIDTH,
            subsequent_indent="    " if part.startswith("(") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for part in f"{name}: {kind}{failure.message}".split("\n")
    ]
    sys.stderr.write(failure.trace + "\n".join(wrapped) + "\n")
    sys.stderr.flush()


def _missing_package(error: BaseException) -> EnvironmentProblem | None:
    """What to install, where the failure is that a package of an extra is absent."""
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    extra = _EXTRAS.get((absent or "").split(".")[0])
    if extra is None:
        return None
    return EnvironmentProblem(
        f"the Python package {absent} is not installed for {sys.executable}. Run `make setup` and use its "
        f"environment's spark-submit, or install it: pip install 'prune-lib[{extra}]'."
    )


def _unexpected(name: str, error: BaseException, settings: JobSettings | None, lines: Iterable[str]) -> str:
    """What to say of a failure that nobody foresaw; its full trace goes where the text says."""
    trace = "".join(traceback.format_exception(error))
    what = _headline(error)
    hint = next((text for words, text in _HINTS if any(w in trace.lower() for w in words)), "")
    if settings is not None and settings.verbose:
        where = "The full trace is above."
    else:
        path = _write_trace(name, trace, settings, lines)
        where = f"The full trace and the log are in {path}." if path else "--verbose prints the full trace."
    return " ".join(part for part in (what, hint, where) if part)


def _headline(error: BaseException) -> str:
    r"""The first line that says what happened, without Java's frames.

    >>> _headline(ValueError("no such thing\nat line 3"))
    'the run failed with ValueError: no such thing.'
    """
    text = str(error).strip()
    what = f"with {type(error).__name__}"
    java = getattr(error, "java_exception", None)
    if java is not None:
        with contextlib.suppress(Exception):  # the JVM may be gone
            while java.getCause() is not None:
                java = java.getCause()
            text = str(java.toString())
            what = "in Spark"
    elif type(error).__name__ == "PythonException":  # raised in a Python worker
        text = text.split("\n\n")[0].strip().rpartition("\n")[2]
        what = "in a Python worker"
    first = text.split("\n", 1)[0].strip()
    first = re.sub(r"; line \d+ pos \d+;?$", "", first)
    if len(first) > 400:
        first = first[:400] + "…"
    return f"the run failed {what}: {first}".rstrip(".: ") + "."


def _write_trace(name: str, trace: str, settings: JobSettings | None, lines: Iterable[str]) -> Path | None:
    """Our log lines and the trace, in a file of the workspace or of the temporary folder."""
    from prune_lib.locations import workspace_folder

    folder = workspace_folder(settings.workspace) if settings is not None else None
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for place in (folder / "logs" if folder else None, Path(tempfile.gettempdir())):
        if place is None:
            continue
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            path = place / f"{name}-{stamp}-{os.getpid()}.log"
            head = f"settings: {settings.settings_json()}\n" if settings is not None else ""
            text = redacted(head + "\n".join([*lines, trace]))
            # Half a surrogate pair in a message must not hide the failure.
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return path
    return None

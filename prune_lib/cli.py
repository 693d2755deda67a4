"""Console entry points: settings in, exit code out; no stack trace for a user's mistake.

Exit codes: 0 done, 1 the run failed, 2 the user can mend it, 130 interrupted. Log lines go to
stderr, the summary to stdout. Spark and torch are imported only once the settings are right.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import tempfile
import textwrap
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prune_lib.errors import EnvironmentProblem, PruneError

if TYPE_CHECKING:
    from prune_lib.evaluation.settings import EvaluateSettings
    from prune_lib.settings import PruneSettings
    from prune_lib.settings.explain import ExplainSettings
    from prune_lib.settings.job import JobSettings, JobText
    from prune_lib.settings.train import ExpertsSettings

__all__ = ["evaluate_main", "explain_main", "prune_main", "run_job", "train_main"]

Settings = TypeVar("Settings", bound="JobSettings")

_WIDTH = 100
_LOG = logging.getLogger("prune_lib")
# Lines of our own log that a failure's file repeats: hours of a run, a few hundred kilobytes.
_REMEMBERED = 2000

# Which extra of the package brings what; a machine that only imports the library has none of them.
_EXTRAS = {
    "pyspark": "spark",
    "delta": "spark",
    "graphframes": "spark",
    "numba": "spark",
    "torch": "experts",
    "safetensors": "experts",
    "petastorm": "experts",
    "mlflow": "tracking",
}

# What a failure's text says about a cause that the user can do something about.
_HINTS = (
    (
        ("java heap space", "gc overhead limit", "outofmemoryerror"),
        "Spark ran out of memory: give it more with `spark-submit --driver-memory 8g` (local runs) or larger "
        "executors.",
    ),
    (
        ("no space left on device", "disk quota exceeded"),
        "The disk is full: free some space, or point Spark's scratch folder (SPARK_LOCAL_DIRS) and "
        "--workspace to a larger disk.",
    ),
    (("permission denied", "accesscontrolexception"), "Check the rights on the folders involved."),
)


def prune_main(argv: Sequence[str] | None = None) -> None:
    """Prune a table: what `jobs/prune.py` and the console command `prune` run.

    Args:
        argv: arguments without the program's name; None for this process's own.

    Raises:
        SystemExit: with the exit code, where it is not 0.
    """
    from prune_lib.settings import PruneSettings

    def job(settings: PruneSettings) -> object:
        from prune_lib.pipeline import prune

        return prune(settings)

    _exit(run_job(PruneSettings, job, argv))


def evaluate_main(argv: Sequence[str] | None = None) -> None:
    """Measure pruning: what `jobs/evaluate.py` and the console command `evaluate-pruning` run.

    Args:
        argv: arguments without the program's name; None for this process's own.

    Raises:
        SystemExit: with the exit code, where it is not 0.
    """
    from prune_lib.evaluation.settings import EvaluateSettings

    def job(settings: EvaluateSettings) -> object:
        from prune_lib.evaluation.job import evaluate

        return evaluate(settings)

    _exit(run_job(EvaluateSettings, job, argv))


def explain_main(argv: Sequence[str] | None = None) -> None:
    """Explain a decision: what `jobs/explain.py` and the console command `explain-pruning` run.

    Args:
        argv: arguments without the program's name; None for this process's own.

    Raises:
        SystemExit: with the exit code, where it is not 0.
    """
    from prune_lib.settings.explain import ExplainSettings

    def job(settings: ExplainSettings) -> object:
        from prune_lib.pages import explain_settings

        return explain_settings(settings)

    _exit(run_job(ExplainSettings, job, argv))


def report_main(argv: Sequence[str] | None = None) -> None:
    """Write a report: what `jobs/report.py` and the console command `report-pruning` run.

    Args:
        argv: arguments without the program's name; None for this process's own.

    Raises:
        SystemExit: with the exit code, where it is not 0.
    """
    from prune_lib.settings.report import ReportSettings

    def job(settings: ReportSettings) -> object:
        from prune_lib.report.job import report

        return report(settings)

    _exit(run_job(ReportSettings, job, argv))


def train_main(argv: Sequence[str] | None = None) -> None:
    """Train experts: what `jobs/train.py` and the console command `train-experts` run.

    Args:
        argv: arguments without the program's name; None for this process's own.

    Raises:
        SystemExit: with the exit code, where it is not 0.
    """
    from prune_lib.settings.train import ExpertsSettings

    def job(settings: ExpertsSettings) -> object:
        from prune_lib.train_job import train

        return train(settings)

    _exit(run_job(ExpertsSettings, job, argv))


def _exit(code: int) -> None:
    if code:
        sys.exit(code)


def run_job(
    model: type[Settings], job: Callable[[Settings], object], argv: Sequence[str] | None = None
) -> int:
    """Read the settings, run a job, print its result; every failure becomes a message and a code.

    Args:
        model: the job's settings; its name starts the job's error messages.
        job: gets the settings; what it returns is printed on stdout.
        argv: arguments without the program's name; None for this process's own.

    Returns:
        The exit code.
    """
    from prune_lib.settings.sources import load

    lines = _Remembered()
    settings: Settings | None = None
    with _interrupts() as pressed:
        try:
            settings = load(model, argv)
            _start_logging(settings.verbose, lines)
            summary = job(settings)
            _print(f"{summary}\n")
            return 0
        except BrokenPipeError:  # the summary was piped into a program that ended, such as `head`
            sys.stdout = open(os.devnull, "w")  # or Python complains at exit
            return 0
        except (Exception, KeyboardInterrupt) as error:
            return _failed(model.job, error, settings, lines, pressed())


def _print(text: str) -> None:
    """Write to stdout; what its encoding lacks (an arrow, say) becomes a question mark."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def _failed(
    about: JobText,
    error: BaseException,
    settings: JobSettings | None,
    lines: _Remembered,
    interrupted: bool,
) -> int:
    """Say what happened; the exit code."""
    name = about.name
    if interrupted or isinstance(error, KeyboardInterrupt):
        _say(name, f"interrupted. {about.interrupted}".rstrip(), kind="")
        return 130
    known = error if isinstance(error, PruneError) else _missing_package(error)
    if known is None:
        _say(name, _unexpected(name, error, settings, lines))
        return 1
    _say(name, str(known))
    if settings is not None and settings.verbose:
        traceback.print_exception(error)
    return known.exit_code


@contextlib.contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Notice Ctrl-C whatever becomes of it; gives a function that tells whether it was pressed.

    Spark puts its own handler of the signal in the place of Python's: it asks the JVM to cancel the
    jobs, and where another call to the JVM is open, both end in an error of the gateway that says
    nothing of the signal. The wake-up descriptor hears of a signal whoever handles it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    ours, other = socket.socketpair()
    ours.setblocking(False)
    other.setblocking(False)
    former = signal.set_wakeup_fd(other.fileno(), warn_on_full_buffer=False)

    def pressed() -> bool:
        try:
            return signal.SIGINT in ours.recv(4096)
        except BlockingIOError:
            return False

    try:
        yield pressed
    finally:
        signal.set_wakeup_fd(former)
        ours.close()
        other.close()


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


def _say(name: str, text: str, kind: str = "error: ") -> None:
    """One paragraph on stderr; lines of a list stay lines."""
    paragraphs = f"{name}: {kind}{text}".split("\n")
    wrapped = [
        textwrap.fill(
            part,
            _WIDTH,
            subsequent_indent="    " if part.startswith("(") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for part in paragraphs
    ]
    sys.stderr.write("\n".join(wrapped) + "\n")
    sys.stderr.flush()


def _unexpected(name: str, error: BaseException, settings: JobSettings | None, lines: _Remembered) -> str:
    """What to say of a failure that nobody foresaw; its full trace goes where the text says."""
    trace = "".join(traceback.format_exception(error))
    what = _headline(error)
    hint = next((text for words, text in _HINTS if any(w in trace.lower() for w in words)), "")
    if settings is not None and settings.verbose:
        sys.stderr.write(trace)
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


def _write_trace(name: str, trace: str, settings: JobSettings | None, lines: _Remembered) -> Path | None:
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
            path.write_text(head + "\n".join([*lines.lines, trace]), encoding="utf-8")
            return path
    return None


class _Remembered(logging.Handler):
    """Keeps the last lines of our log for the file of a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=_REMEMBERED)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class _Lines(logging.Formatter):
    """`12:03:04 text`; warnings and errors say so."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{record.asctime} {level}{record.message}"

    def usesTime(self) -> bool:  # noqa: N802  (logging's name)
        return True


def _start_logging(verbose: bool, remembered: logging.Handler) -> None:
    """Our own lines on stderr, other libraries' warnings only."""
    stream: logging.StreamHandler[Any] = logging.StreamHandler(sys.stderr)
    for handler in (stream, remembered):
        handler.setFormatter(_Lines(datefmt="%H:%M:%S"))
    _LOG.handlers = [stream, remembered]
    _LOG.setLevel(logging.DEBUG if verbose else logging.INFO)
    _LOG.propagate = False
    root = logging.getLogger()
    if not root.handlers:
        # Other libraries' warnings in the same form; without a handler Python makes its own.
        others: logging.StreamHandler[Any] = logging.StreamHandler(sys.stderr)
        others.setFormatter(_Lines(datefmt="%H:%M:%S"))
        others.setLevel(logging.WARNING)
        # Py4J says this to the root logger, with a trace, when Ctrl-C cuts an open call.
        others.addFilter(lambda record: "Exception while sending command" not in str(record.msg))
        root.addHandler(others)
    # Py4J logs an error for every call that is open when a run is interrupted.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)

"""Console entry points: settings in, exit code out; no stack trace for a user's mistake.

Exit codes: 0 done, 1 the run failed, 2 the user can mend it, 130 interrupted. Log lines go to stderr, the
summary to stdout; with `--json` stdout gets one JSON object, of a failure too. Spark and torch are imported
only once the settings are right.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from prune_lib.terminal.failures import failure_of, say
from prune_lib.terminal.logs import Remembered, logging_to_stderr
from prune_lib.terminal.output import print_json, print_text
from prune_lib.terminal.streams import own_stderr

if TYPE_CHECKING:
    from prune_lib.settings.job import JobSettings

__all__ = [
    "evaluate_main",
    "explain_main",
    "ingest_main",
    "prune_main",
    "report_main",
    "run_job",
    "train_main",
]

Settings = TypeVar("Settings", bound="JobSettings")


def prune_main(argv: Sequence[str] | None = None) -> None:
    """Prune a table: what `jobs/prune.py` and the console command `prune` run; ends the process.

    Args:
        argv: arguments without the program's name; None for this process's own.
    """
    from prune_lib.settings import PruneSettings

    _main(PruneSettings, "prune_lib.pipeline:run_prune", argv)


def evaluate_main(argv: Sequence[str] | None = None) -> None:
    """Measure pruning: what `jobs/evaluate.py` and `evaluate-pruning` run; as `prune_main`."""
    from prune_lib.evaluation.settings import EvaluateSettings

    _main(EvaluateSettings, "prune_lib.evaluation.job:run_evaluation", argv)


def explain_main(argv: Sequence[str] | None = None) -> None:
    """Explain a decision: what `jobs/explain.py` and `explain-pruning` run; as `prune_main`."""
    from prune_lib.settings.explain import ExplainSettings

    _main(ExplainSettings, "prune_lib.pages:explain_settings", argv)


def ingest_main(argv: Sequence[str] | None = None) -> None:
    """Bring a click log in: what `jobs/ingest.py` and `ingest-clicks` run; as `prune_main`."""
    from prune_lib.settings.ingest import IngestSettings

    _main(IngestSettings, "prune_lib.ingest.job:run_ingest", argv)


def report_main(argv: Sequence[str] | None = None) -> None:
    """Write a report: what `jobs/report.py` and `report-pruning` run; as `prune_main`."""
    from prune_lib.settings.report import ReportSettings

    _main(ReportSettings, "prune_lib.report.job:report", argv)


def train_main(argv: Sequence[str] | None = None) -> None:
    """Train experts: what `jobs/train.py` and `train-experts` run; as `prune_main`."""
    from prune_lib.settings.train import ExpertsSettings

    _main(ExpertsSettings, "prune_lib.train_job:train", argv)


def _main(model: type[JobSettings], job: str, argv: Sequence[str] | None) -> None:
    """Run a job whose code (`module:function`) is loaded once the settings are right."""

    def run(settings: JobSettings) -> object:
        module, _, name = job.partition(":")
        return getattr(import_module(module), name)(settings)

    code = run_job(model, run, argv)
    if code:
        sys.exit(code)


def run_job(
    model: type[Settings], job: Callable[[Settings], object], argv: Sequence[str] | None = None
) -> int:
    """Read the settings, run a job, print its result; every failure becomes a message and a code.

    Args:
        model: the job's settings; its name starts the job's error messages.
        job: gets the settings; what it returns is printed on stdout, its `record()` with --json.
        argv: arguments without the program's name; None for this process's own.

    Returns:
        The exit code.
    """
    from prune_lib.settings.sources import asks_for_json, load

    lines = Remembered()
    settings: Settings | None = None
    as_json = asks_for_json(model, argv)
    own_stderr(clean=as_json)
    with _interrupts() as pressed:
        try:
            settings = load(model, argv)
            as_json = settings.as_json
            own_stderr(clean=as_json or settings.quiet or settings.log_json)
            objects = model.job.name if settings.log_json else None
            with logging_to_stderr(lines, verbose=settings.verbose, quiet=settings.quiet, objects=objects):
                result = job(settings)
            with _reader_may_end():
                if as_json:
                    print_json({"job": model.job.name, **_record(result)})
                elif not settings.quiet:
                    print_text(str(result))
            return 0
        except (Exception, KeyboardInterrupt) as error:
            failure = failure_of(model.job, error, settings, lines.lines, pressed())
            say(model.job.name, failure)
            if as_json:
                with _reader_may_end():
                    print_json({"job": model.job.name, **failure.record()})
            return failure.exit_code


@contextlib.contextmanager
def _reader_may_end() -> Iterator[None]:
    """What is printed may be piped into a program that ends before, such as `head`."""
    try:
        yield
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # or Python complains at exit


def _record(result: object) -> dict[str, Any]:
    record = getattr(result, "record", None)
    return dict(record()) if callable(record) else {"text": str(result)}


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

"""Our log lines: on stderr, above the live line of a terminal, and kept for a failure's file."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from prune_lib.experts.progress import PROGRESS
from prune_lib.redaction import redacted
from prune_lib.stages import Stage, under_way

__all__ = ["Remembered", "logging_to_stderr"]

_LOG = logging.getLogger("prune_lib")
# Lines of our own log that a failure's file repeats: hours of a run, a few hundred kilobytes.
_REMEMBERED = 2000


class Remembered(logging.Handler):
    """Keeps the last lines of our log for the file of a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=_REMEMBERED)
        self.addFilter(_is_line)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(self.format(record))


class _Lines(logging.Formatter):
    """`12:03:04 text`; warnings and errors say so."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{record.asctime} {level}{record.message}"

    def format(self, record: logging.LogRecord) -> str:
        # With its trace, if it has one: libraries repeat addresses, passwords and all.
        return redacted(super().format(record))

    def usesTime(self) -> bool:  # noqa: N802  (logging's name)
        return True


class _Objects(logging.Formatter):
    """A JSON object a line, for what collects logs."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self.job = job

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "job": self.job,
            **under_way(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        ends = getattr(record, "ends", None)
        if isinstance(ends, Stage):
            line["seconds"] = ends.seconds
            if ends.rows is not None:
                line["rows"] = ends.rows
        if record.exc_info:
            line["trace"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=True)


class _Others(logging.Handler):
    """Other libraries' warnings, to where our lines go."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__(logging.WARNING)
        self.target = target
        # Py4J says this to the root logger, with a trace, when Ctrl-C cuts an open call.
        self.addFilter(lambda record: "Exception while sending command" not in str(record.msg))

    def emit(self, record: logging.LogRecord) -> None:
        self.target.handle(record)


@contextlib.contextmanager
def logging_to_stderr(
    remembered: Remembered, *, verbose: bool = False, quiet: bool = False, objects: str | None = None
) -> Iterator[None]:
    """Within it, our lines come on stderr, and of other libraries the warnings.

    On a terminal the stage under way is drawn below them. At the end that line is gone, and later lines come
    as they are.

    Args:
        remembered: keeps our lines.
        verbose: more lines.
        quiet: warnings and errors only.
        objects: the job, where lines are to be JSON objects; a terminal then gets them, too.
    """
    plain: logging.StreamHandler[Any] = logging.StreamHandler(sys.stderr)
    plain.addFilter(_is_line)
    _start(plain, remembered, verbose, quiet)
    if objects is not None:
        plain.setFormatter(_Objects(objects))
    with contextlib.ExitStack() as drawn:
        if not quiet and objects is None:
            from prune_lib.terminal.live import LiveLine, can_redraw

            if can_redraw():
                live = drawn.enter_context(LiveLine())
                _start(live, remembered, verbose, quiet)
                drawn.callback(_start, plain, remembered, verbose, quiet)
        yield


def _start(shown: logging.Handler, remembered: Remembered, verbose: bool, quiet: bool) -> None:
    for handler in (shown, remembered):
        handler.setFormatter(_Lines(datefmt="%H:%M:%S"))
    shown.setLevel(logging.WARNING if quiet else logging.NOTSET)
    _LOG.handlers = [shown, remembered]
    # What is remembered for a failure's file is the same whether or not the user wanted to see it.
    _LOG.setLevel(logging.DEBUG if verbose else PROGRESS)
    _LOG.propagate = False
    root = logging.getLogger()
    former = [handler for handler in root.handlers if isinstance(handler, _Others)]
    if former or not root.handlers:
        # In the same form as ours; without a handler Python makes its own.
        root.handlers = [_Others(shown)]
    # Py4J logs an error for every call that is open when a run is interrupted.
    logging.getLogger("py4j").setLevel(logging.CRITICAL)


def _is_line(record: logging.LogRecord) -> bool:
    """Whether a record is one to read later, not one for a line that is redrawn."""
    return record.levelno != PROGRESS

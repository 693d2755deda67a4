"""A terminal's live line: the stage under way, redrawn below the log lines.

What is drawn comes in by log records: those that say a stage begins or ends (`stages.Stages`), how far a
training is (`experts.progress`), and plain lines, which scroll by above.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from prune_lib.experts.progress import Progress
    from prune_lib.stages import Stage

__all__ = ["LiveLine", "can_redraw", "spark_tasks"]

_FRAMES = {True: "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", False: "|/-\\"}
_A_SECOND = 8
# Of fewer tasks, how many are done says nothing.
_TELLING = 10
# Width of the longest common stage's name, so that seconds stand below each other.
_NAME = 14


def can_redraw() -> bool:
    """Whether stderr is a terminal whose lines can be drawn again."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


class LiveLine(logging.Handler):
    """Draws log records on a terminal; a context, within which the line is there."""

    def __init__(
        self, console: Console | None = None, tasks: Callable[[], tuple[int, int] | None] | None = None
    ) -> None:
        """Draw nothing yet.

        Args:
            console: where to; stderr by default. Colours are left out where NO_COLOR is set.
            tasks: what Spark is doing, tasks done and all; asked once a second.
        """
        super().__init__()
        self.console = console or Console(
            stderr=True, force_terminal=True, highlight=False, markup=False, emoji=False
        )
        self._plain = self.console.encoding.lower().replace("-", "") != "utf8"
        self._running: list[tuple[Stage, float]] = []
        self._steps: dict[int, Progress] = {}
        self._tasks: tuple[int, int] | None = None
        self._ask = tasks or spark_tasks
        self._ended = threading.Event()
        self._live = Live(
            self, console=self.console, refresh_per_second=_A_SECOND, transient=True, redirect_stdout=False
        )

    def __enter__(self) -> LiveLine:
        """Draw from now on."""
        self._live.start()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing behind, whatever was under way."""
        self._running, self._steps = [], {}
        self._ended.set()
        self._live.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """Draw a record: a stage, a step of it, or a line."""
        begins, ends = getattr(record, "begins", None), getattr(record, "ends", None)
        progress = getattr(record, "progress", None)
        if begins is not None:
            self._running = [*self._running, (begins, time.monotonic())]
        elif ends is not None:
            depth = max(0, len(self._running) - 1)
            self._running = [entry for entry in self._running if entry[0] is not ends]
            self._steps = {}
            self.console.print(self._done(ends, depth), no_wrap=True, overflow="ellipsis", crop=True)
        elif progress is not None:
            others = {place: step for place, step in self._steps.items() if place != progress.place}
            self._steps = others if progress.done is None else {**others, progress.place: progress}
        elif record.levelno >= logging.INFO or record.levelno == logging.DEBUG:
            style = "yellow" if record.levelno >= logging.WARNING else "dim"
            self.console.print(Text(self.format(record), style=style), soft_wrap=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The line, and below it those of trainings that run side by side."""
        for text in self._lines():
            text.truncate(options.max_width, overflow="ellipsis")
            yield text

    def _lines(self) -> Iterator[Text]:
        running, steps, tasks = self._running, self._steps, self._tasks
        if not running:
            return
        frames = _FRAMES[not self._plain]
        frame = frames[int(time.monotonic() * _A_SECOND) % len(frames)]
        stage, started = running[-1]
        line = Text.assemble(
            "  " * (len(running) - 1),
            (frame, "cyan"),
            " ",
            (f"{stage.name:<{_NAME}}", "bold"),
            f" {time.monotonic() - started:7.0f} s",
        )
        if tasks is not None and tasks[1] >= _TELLING:
            line.append(f"   Spark: {tasks[0]:,} of {tasks[1]:,} tasks", "dim")
        yield line
        for _, step in sorted(steps.items()):
            share = (step.done or 0) / max(1, step.total)
            yield Text.assemble(
                f"    {step.name} ", (f"{100 * share:3.0f} % of {step.total:,} sessions", "dim")
            )

    def _done(self, stage: Stage, depth: int) -> Text:
        mark = "-" if self._plain else "✓"
        rows = "" if stage.rows is None else f"   {stage.rows:,} rows"
        return Text.assemble(
            "  " * depth,
            (mark, "green"),
            " ",
            (f"{stage.name:<{_NAME}}", "bold"),
            f" {stage.seconds:7.1f} s",
            (rows, "dim"),
        )

    def _watch(self) -> None:
        # In a thread of its own: where the JVM does not answer, the line is drawn nevertheless.
        while not self._ended.wait(1.0):
            self._tasks = self._ask()


def spark_tasks() -> tuple[int, int] | None:
    """Tasks of Spark's running stages, done and all; None where it runs none."""
    core = sys.modules.get("pyspark.core.context") or sys.modules.get("pyspark.context")
    context = getattr(getattr(core, "SparkContext", None), "_active_spark_context", None)
    if context is None:
        return None
    try:
        tracker = context.statusTracker()
        found = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
    except Exception:  # the JVM is going, or has gone: the run itself will say so
        return None
    known = [info for info in found if info is not None]
    if not known:
        return None
    return sum(i.numCompletedTasks for i in known), sum(i.numTasks for i in known)

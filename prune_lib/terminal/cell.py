"""Progress in a notebook: a line below the cell that says which stage is under way, gone at the end.

A run takes minutes, and a cell that says nothing for so long looks dead.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from prune_lib.experts.progress import PROGRESS

if TYPE_CHECKING:
    from prune_lib.stages import Stage

__all__ = ["CellLine", "line_in_notebook"]

_LOG = logging.getLogger("prune_lib")


class CellLine(logging.Handler):
    """Draws the log records of stages (see `stages.Stages`) in a notebook's display."""

    def __init__(self, display: Any) -> None:
        """Draw nothing yet.

        Args:
            display: a handle with `update(data, raw=True)`, as IPython's `display(display_id=True)` gives.
        """
        super().__init__(PROGRESS)
        self._display = display
        self._running: list[Stage] = []
        self._done: list[Stage] = []
        self._started = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Draw what a record tells; warnings and other lines are left to the user's own logging."""
        begins, ends = getattr(record, "begins", None), getattr(record, "ends", None)
        progress = getattr(record, "progress", None)
        step = ""
        if begins is not None:
            self._running.append(begins)
        elif ends is not None:
            self._running = [stage for stage in self._running if stage is not ends]
            self._done.append(ends)
        elif progress is not None and progress.done is not None:
            share = 100 * progress.done / max(1, progress.total)
            step = f"{progress.name} {share:.0f} % of {progress.total:,} sessions"
        else:
            return
        self._draw(step)

    def clear(self) -> None:
        """Leave nothing behind."""
        self._display.update({"text/plain": "", "text/html": ""}, raw=True)

    def _draw(self, step: str) -> None:
        seconds = time.monotonic() - self._started
        now = " › ".join(stage.name for stage in self._running) or "…"
        done = ", ".join(f"{stage.name} {stage.seconds:.0f} s" for stage in self._done if stage.seconds >= 1)
        parts = [part for part in (step, f"done: {done}" if done else "") if part]
        text = f"{seconds:.0f} s  {now}" + "".join(f"  ({part})" for part in parts)
        html = (
            f'<span style="opacity:.7">{seconds:.0f} s</span> <b>{escape(now)}</b> '
            f'<span style="opacity:.7">{escape(" · ".join(parts))}</span>'
        )
        self._display.update({"text/plain": text, "text/html": html}, raw=True)


@contextlib.contextmanager
def line_in_notebook() -> Iterator[None]:
    """Within it, a notebook's cell shows the stage under way; elsewhere nothing is changed.

    Where the user's own logging shows our lines already, or a line is there, there is none more.
    """
    shell = _notebook()
    if shell is None:
        yield
        return
    with warnings.catch_warnings():
        # Of tqdm, which other libraries load: it asks for widgets that nothing here needs.
        warnings.filterwarnings("ignore", message="IProgress not found")
        if _LOG.isEnabledFor(logging.INFO):
            yield
        else:
            with _line():
                yield


@contextlib.contextmanager
def _line() -> Iterator[None]:
    from IPython.display import display

    show: Any = display
    line = CellLine(show({"text/plain": ""}, raw=True, display_id=True))
    level, spreads = _LOG.level, _LOG.propagate
    # What is below the user's own level is for this line only; warnings go where they always went.
    above = _Above(_LOG.getEffectiveLevel())
    _LOG.addHandler(line)
    _LOG.addHandler(above)
    _LOG.setLevel(PROGRESS)
    _LOG.propagate = False
    try:
        yield
    finally:
        _LOG.removeHandler(line)
        _LOG.removeHandler(above)
        _LOG.setLevel(level)
        _LOG.propagate = spreads
        line.clear()


class _Above(logging.Handler):
    """Hands on to the root logger what it would have got without our lower level."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().callHandlers(record)


def _notebook() -> Any:
    """IPython's shell where it runs in a notebook's kernel; None elsewhere."""
    core = sys.modules.get("IPython")
    shell = core.get_ipython() if core is not None else None
    return shell if hasattr(shell, "kernel") else None

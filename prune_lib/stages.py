"""What a run tells while it works: one line a stage, and the record of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Stage", "Stages"]

_LOG = logging.getLogger(__name__)


@dataclass
class Stage:
    """One stage; set `rows` inside it where the number says something."""

    name: str
    seconds: float = 0.0
    rows: int | None = None


@dataclass
class Stages:
    """The stages of a run, in order, and the warnings on the way."""

    done: list[Stage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Time a stage; one line at its start, one at its end.

        The log records carry the stage (`begins`, `ends`): terminal/live.py draws it its own way.
        """
        stage = Stage(name)
        _LOG.info("%s ...", name, extra={"begins": stage})
        started = time.monotonic()
        yield stage
        stage.seconds = round(time.monotonic() - started, 3)
        self.done.append(stage)
        rows = "" if stage.rows is None else f"{stage.rows:,} rows, "
        _LOG.info("%s: %s%.1f s", name, rows, stage.seconds, extra={"ends": stage})

    def warn(self, message: str) -> None:
        """Say it now and keep it for the run's record."""
        _LOG.warning("%s", message)
        self.warnings.append(message)

"""What a run tells while it works: one line a stage, and the record of it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Stage", "Stages", "described", "under_way"]

_LOG = logging.getLogger(__name__)


@dataclass
class Stage:
    """One stage; set `rows` inside it where the number says something."""

    name: str
    seconds: float = 0.0
    rows: int | None = None


#: Run and stage under way, for log lines; of all threads of the process, which runs one job.
_UNDER_WAY: dict[str, str] = {}


def under_way() -> dict[str, str]:
    """Run and stage under way, those that there are."""
    return dict(_UNDER_WAY)


@dataclass
class Stages:
    """The stages of a run, in order, and the warnings on the way.

    Attributes:
        done: stages that have ended.
        warnings: said on the way.
        run_id: of the run, once it has one.
    """

    done: list[Stage] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    run_id: str = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Time a stage; one line at its start, one at its end; Spark's UI shows its jobs under its name.

        The log records carry the stage (`begins`, `ends`): terminal/live.py draws it its own way.
        """
        stage = Stage(name)
        former = under_way()
        _UNDER_WAY.update({"run": self.run_id, "stage": name} if self.run_id else {"stage": name})
        _LOG.info("%s ...", name, extra={"begins": stage})
        started = time.monotonic()
        with described(name):
            yield stage
        stage.seconds = round(time.monotonic() - started, 3)
        self.done.append(stage)
        rows = "" if stage.rows is None else f"{stage.rows:,} rows, "
        _LOG.info("%s: %s%.1f s", name, rows, stage.seconds, extra={"ends": stage})
        # Not after a failure: what is said of it says where it was.
        _UNDER_WAY.clear()
        _UNDER_WAY.update(former)

    def warn(self, message: str) -> None:
        """Say it now and keep it for the run's record."""
        _LOG.warning("%s", message)
        self.warnings.append(message)


_DESCRIPTION = "spark.job.description"


@contextmanager
def described(name: str) -> Iterator[None]:
    """Within it, Spark's jobs are described so, after what the run says of them; nothing without Spark."""
    spark: Any = sys.modules.get("pyspark")
    context = spark.SparkContext._active_spark_context if spark is not None else None
    if context is None:
        yield
        return
    former = context.getLocalProperty(_DESCRIPTION)
    context.setLocalProperty(_DESCRIPTION, f"{former}: {name}" if former else name)
    try:
        yield
    finally:
        # After a failure the JVM may be gone; the failure is what is told.
        with suppress(Exception):
            context.setLocalProperty(_DESCRIPTION, former)

"""How training tells where it is: by log records, for a line that is redrawn and for lines of a log.

Records carry `progress`, a `Progress`. Those of the level `PROGRESS`, below INFO, come often and are for a
line that is redrawn (terminal/live.py); those of INFO are lines of a log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

__all__ = ["PROGRESS", "EpochProgress", "Progress", "named"]

log = logging.getLogger(__name__)

#: Level of records that are for a line that is redrawn: between DEBUG and INFO.
PROGRESS = 15
#: Seconds between two of them, and between two lines of a log.
REDRAWN, EVERY = 0.5, 15.0


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is.

    Attributes:
        place: its line, where several pieces go side by side.
        name: what is under way.
        done: sessions so far; None once all are.
        total: sessions in all.
    """

    place: int
    name: str
    done: int | None
    total: int


class EpochProgress:
    """Tells of an epoch while it runs, as a context; its user says what is done by `update`."""

    def __init__(self, name: str, sessions: int, place: int, *, shown: bool) -> None:
        """Start at nothing.

        Args:
            name: what is under way.
            sessions: how many there are.
            place: line on a terminal, for several side by side.
            shown: False tells nothing.
        """
        self.name, self.total, self.place, self.shown = name, sessions, place, shown
        self.done = 0
        self._started = self._drawn = self._logged = time.monotonic()

    def __enter__(self) -> EpochProgress:
        """Tell that it begins."""
        self._tell(PROGRESS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell that it has ended."""
        self.done = self.total
        self._tell(PROGRESS, ended=True)

    def update(self, sessions: int) -> None:
        """Add sessions that are done."""
        self.done += sessions
        now = time.monotonic()
        if now - self._logged >= EVERY:
            self._logged = self._drawn = now
            self._tell(logging.INFO)
        elif now - self._drawn >= REDRAWN:
            self._drawn = now
            self._tell(PROGRESS)

    def _tell(self, level: int, ended: bool = False) -> None:
        if not self.shown:
            return
        left = ""
        if self.done and not ended:
            seconds = (time.monotonic() - self._started) * (self.total - self.done) / self.done
            left = f", about {int(seconds) // 60:02d}:{int(seconds) % 60:02d} left"
        done = None if ended else self.done
        log.log(
            level,
            "%s: %s of %s sessions%s",
            self.name,
            f"{self.done:,}",
            f"{self.total:,}",
            left,
            extra={"progress": Progress(self.place, self.name, done, self.total)},
        )


def named(numbers: Mapping[str, float]) -> str:
    """Numbers with their names, for a log line.

    >>> named({"gnn": -7.94123, "rnn": -8.0})
    'gnn -7.941, rnn -8.000'
    """
    return ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())

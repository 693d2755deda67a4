"""How training shows where it is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

__all__ = ["epoch_bar", "named"]

log = logging.getLogger(__name__)
#: Seconds between two lines of a log that cannot be redrawn.
EVERY = 15.0


class _LogLines:
    """What tqdm writes as lines of our log. spark-submit pipes our output: a bar cannot be redrawn there."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            log.info("%s", line)

    def flush(self) -> None:
        """Nothing is held back."""


def epoch_bar(name: str, sessions: int, place: int, *, shown: bool) -> tqdm[Any]:
    """A progress bar over the sessions of an epoch; the caller updates it by sessions.

    Args:
        name: what is under way.
        sessions: how many there are.
        place: line of the bar on a terminal, for several side by side.
        shown: False shows nothing.
    """
    if sys.stderr.isatty():
        return tqdm(
            desc=name, total=sessions, unit=" sessions", disable=not shown, leave=False, position=place
        )
    return tqdm(
        desc=name,
        total=sessions,
        bar_format="{desc}: {n_fmt} of {total_fmt} sessions, about {remaining} left",
        disable=not shown,
        leave=False,
        mininterval=EVERY,
        miniters=1,  # else tqdm's monitor prints lines of its own in between
        delay=EVERY,
        file=_LogLines(),
    )


def named(numbers: Mapping[str, float]) -> str:
    """Numbers with their names, for a log line.

    >>> named({"gnn": -7.94123, "rnn": -8.0})
    'gnn -7.941, rnn -8.000'
    """
    return ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())

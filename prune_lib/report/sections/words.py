"""Words that several sections share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prune_lib.report.facts import Facts
from prune_lib.schemas import RUNS

__all__ = ["MEANS", "as_designed", "clicks", "decimal", "units"]

#: What the columns of the runs table mean.
MEANS = {column.name: column.comment for column in RUNS}
_CLICKS_SHOWN = 12


def units(facts: Facts) -> str:
    """What is counted: sessions, or samples."""
    return "samples" if facts.samples else "sessions"


def as_designed(facts: Facts) -> bool:
    """Whether our method chose, with suspects last: what a chart tells of it is true of no other."""
    suspects = facts.settings.get("suspects", {})
    return facts.run["method"] == "graph" and all(suspects.get(k) == "last" for k in ("bots", "noise"))


def clicks(items: Sequence[Any] | None) -> str:
    """The first clicks of a session.

    >>> clicks(["a", "b"]), clicks(None)
    ('a → b', '–')
    """
    if items is None or isinstance(items, float):
        return "–"
    more = len(items) - _CLICKS_SHOWN
    shown = " → ".join(str(item) for item in items[:_CLICKS_SHOWN])
    return f"{shown} … {more:,} more" if more > 0 else shown


def decimal(value: float | None) -> str:
    """A score or rank.

    >>> decimal(0.12345), decimal(float("nan"))
    ('0.123', '–')
    """
    return "–" if value is None or value != value else f"{value:.3f}"

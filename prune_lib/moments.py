"""Moments and spans of time as settings write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

__all__ = ["moment", "span", "with_zone"]

_SPAN = re.compile(r"(\d+)([hdw])")
_HOURS = {"h": 1, "d": 24, "w": 168}


def moment(text: str) -> datetime | None:
    """A moment as it is written, UTC where it says nothing else; None where it is none.

    >>> moment("2026-10-01"), moment("2026-10-01T02:00+02:00") == moment("2026-10-01"), moment("90d")
    (datetime.datetime(2026, 10, 1, 0, 0, tzinfo=datetime.timezone.utc), True, None)
    >>> moment("0001-01-01T00:00:00+01:00") is None
    True
    """
    try:
        found = datetime.fromisoformat(re.sub(r"Z$", "+00:00", text.strip()))
        return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    # The first day of the year 1 east of Greenwich is of the year 0 in UTC.
    except (ValueError, OverflowError):
        return None


def with_zone(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its times in UTC: Spark gives them in the machine's own zone, and does not say so.

    >>> with_zone({"at": datetime(2026, 10, 1, tzinfo=timezone.utc), "n": 3})["at"].isoformat()
    '2026-10-01T00:00:00+00:00'
    """
    return {k: v.astimezone(timezone.utc) if isinstance(v, datetime) else v for k, v in row.items()}


def span(text: str) -> timedelta | None:
    """A span before the newest click, in hours, days or weeks; None where it is none.

    >>> span("90d"), span("0d"), span("a month")
    (datetime.timedelta(days=90), None, None)
    """
    found = _SPAN.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        return None
    try:
        return timedelta(hours=int(found[1]) * _HOURS[found[2]])
    except OverflowError:
        return None

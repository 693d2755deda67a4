"""Types of settings that several jobs share: each brings its limits and its help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

__all__ = [
    "Advice",
    "BatchSize",
    "Device",
    "Distinct",
    "ItemColumn",
    "Method",
    "OrderColumn",
    "SessionColumn",
    "Share",
    "Since",
    "TimeColumn",
    "Timestamp",
    "Version",
]

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Advice:
    """Part of a setting's type: the sentence that helps who wrote a value that it refuses.

    Attributes:
        of: gets the value as it was written.
    """

    of: Callable[[str], str]


def _of_share(text: str) -> str:
    """Shares are written as percentages, with the sign or without it.

    >>> _of_share("10%")
    'For 10% of the data write 0.1.'
    """
    try:
        percent = float(text.rstrip("% "))
    except ValueError:
        percent = 0.0
    if (1 < percent <= 100 and (percent >= 2 or text.rstrip().endswith("%"))) or (
        0 < percent <= 1 and "%" in text
    ):
        return f"For {percent:g}% of the data write {percent / 100:g}."
    return "It is the share of the data to keep: 0.1 keeps a tenth, 1 keeps everything."


def _distinct(values: tuple[_Value, ...]) -> tuple[_Value, ...]:
    return tuple(dict.fromkeys(values))


# A list of values, the repeated ones removed: 0.1 and 1e-1 would be the same work twice.
Distinct = Annotated[tuple[_Value, ...], AfterValidator(_distinct)]

Share = Annotated[float, Field(gt=0, le=1), Advice(_of_share)]
Method = Literal[
    "graph", "random", "hardest", "easiest", "moderate", "ccs", "d2", "dual", "item-quota", "recent"
]

SessionColumn = Annotated[
    str | None, Field(min_length=1, description="Column of the session id; default: found.")
]
ItemColumn = Annotated[
    str | None,
    Field(
        min_length=1,
        description="Column of the item id (events) or of the array of items (sessions); default: found.",
    ),
]
TimeColumn = Annotated[
    str | None,
    Field(min_length=1, description="Column of the time, or of the array of times; default: found."),
]
OrderColumn = Annotated[
    str | None,
    Field(
        min_length=1,
        description="Column that ranks sessions from old to new where there are no times; default: none.",
    ),
]
Version = Annotated[
    int | None,
    Field(ge=0, description="Delta version of the input; default: the newest, pinned at the start."),
]
Timestamp = Annotated[
    str | None,
    Field(
        min_length=1,
        description="The input as it was at this time (UTC), such as 2026-11-01 or '2026-11-01 12:00:00'.",
    ),
]
Since = Annotated[
    str | None,
    Field(
        min_length=1,
        description="Only sessions whose last click is at this moment (UTC) or later: 2026-10-01, "
        "'2026-10-01 12:00:00'; or 90d, 48h or 12w before the newest click of the input. Needs times.",
        examples=["90d"],
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    Field(description="Where the experts run; auto: the GPU where the task has one."),
]
BatchSize = Annotated[
    int,
    Field(
        ge=16,
        description="Padded positions that go through the experts at a time; more than 16384 go as so many.",
    ),
]

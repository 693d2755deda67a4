"""What the page is made of: numbers with their definitions, tables, figures, sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prune_lib.report.charts.parts import Spec

__all__ = ["Column", "Figure", "Number", "Section", "Table", "count", "percent"]


@dataclass(frozen=True)
class Number:
    """A number with what it means.

    Attributes:
        label: its name.
        value: as text.
        definition: shown when it is pointed at or reached by the keyboard.
        beside: a smaller text after it.
        id: by which the page's script finds it.
    """

    label: str
    value: str
    definition: str
    beside: str = ""
    id: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, what its numbers mean, whether they are numbers."""

    name: str
    definition: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table: cells are text already."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A chart with its words.

    Attributes:
        id: unique in the page.
        title: what it shows.
        caption: how it is read, and what to see in it.
        spec: Vega-Lite.
        table: the same in numbers, folded away.
        wide: whether it takes the page's whole width.
    """

    id: str
    title: str
    caption: str
    spec: Spec
    table: Table | None = None
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: its anchor.
        short: its name in the list of sections.
        title: its heading.
        lead: paragraphs.
        numbers: numbers in a row.
        figures: charts.
        tables: tables that are open.
        code: lines to copy, each with a heading.
        kind: what the template adds: `slider`, `map`, or nothing.
        data: what the page's script reads.
    """

    id: str
    short: str
    title: str
    lead: Sequence[str] = ()
    numbers: Sequence[Number] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    code: Sequence[tuple[str, str]] = ()
    kind: str = ""
    data: dict[str, Any] = field(default_factory=dict)


def count(value: float | int | None) -> str:
    """A count with separators.

    >>> count(12345), count(None)
    ('12,345', '–')
    """
    return "–" if value is None or value != value else f"{int(value):,}"


def percent(part: float | None, whole: float = 1.0, digits: int = 1) -> str:
    """A share in percent.

    >>> percent(1, 8), percent(0.5), percent(1, 0), percent(None)
    ('12.5 %', '50.0 %', '–', '–')
    """
    if part is None or part != part or not whole:
        return "–"
    return f"{100 * part / whole:.{digits}f} %"

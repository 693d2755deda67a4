"""How numbers, tables and paragraphs of the document are written: one way for all of them."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from tabulate import tabulate

from prune_lib.evaluation.intervals import Interval

__all__ = [
    "BLANK",
    "compact",
    "details",
    "difference",
    "join",
    "kept",
    "percent",
    "points",
    "seconds",
    "share",
    "significant",
    "slug",
    "slugs",
    "table",
]

#: Stands for a number that is not there.
BLANK = "–"


def percent(value: float) -> str:
    """A share in percent, one decimal; the sign is the column's.

    >>> percent(0.5893), percent(float("nan"))
    ('58.9', '–')
    """
    return BLANK if math.isnan(value) else _minus(f"{100 * value:.1f}")


def points(value: float) -> str:
    """A difference of shares in percentage points, with its sign.

    >>> points(0.083), points(-0.012), points(0.0)
    ('+8.3', '−1.2', '0.0')
    """
    if math.isnan(value):
        return BLANK
    text = f"{100 * value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else _minus(text)


def difference(found: Interval) -> str:
    """A difference and its interval.

    >>> difference(Interval(0.083, 0.071, 0.094))
    '+8.3 [7.1, 9.4]'
    """
    return points(found.mean) + _bounds(percent(found.low), percent(found.high))


def share(found: Interval) -> str:
    """A share of something else, whole percents with the interval.

    >>> share(Interval(0.842, 0.818, 0.861))
    '84 % [82, 86]'
    """
    if math.isnan(found.mean):
        return BLANK
    low, high = (BLANK if math.isnan(x) else _minus(f"{100 * x:.0f}") for x in (found.low, found.high))
    return f"{100 * found.mean:.0f} %" + _bounds(low, high)


def kept(ratio: float) -> str:
    """A ratio as readers know it.

    >>> kept(0.1), kept(0.125)
    ('10 %', '12.5 %')
    """
    return f"{100 * ratio:g} %"


def seconds(value: float) -> str:
    """Seconds with as many digits as say something.

    >>> [seconds(x) for x in (0.001, 0.062, 5.52, 31.96, 4321.0)]
    ['< 0.01', '0.06', '5.5', '32', '4,321']
    """
    if math.isnan(value):
        return BLANK
    if 0 < value < 0.005:
        return "< 0.01"
    return f"{value:,.{2 if value < 1 else 1 if value < 10 else 0}f}"


def significant(value: float) -> str:
    """Two significant digits, and all those before the point: for energy and money.

    >>> [significant(x) for x in (0.000889, 0.5, 1234.5)]
    ['0.00089', '0.5', '1,234']
    """
    if math.isnan(value):
        return BLANK
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return np.format_float_positional(value, precision=2, unique=False, fractional=False, trim="-")


def compact(number: float) -> str:
    """A count in thousands or millions.

    >>> [compact(x) for x in (950, 142_692, 3_456_789)]
    ['950', '143 k', '3.5 M']
    """
    if math.isnan(number):
        return BLANK
    if number >= 1e6:
        return f"{number / 1e6:,.1f} M"
    return f"{number / 1e3:.0f} k" if number >= 1e4 else f"{number:,.0f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    """A Markdown table; columns that are blank in all rows are left out.

    Args:
        header: names of the columns.
        rows: cells as text, as many as there are names.
        left: so many columns at the start are text, and stay; the others are numbers.

    Returns:
        The table, or nothing where there is no row.
    """
    given = [list(row) for row in rows]
    if not given:
        return ""
    shown = [
        column
        for column in range(len(header))
        if column < left or any(row[column] not in ("", BLANK) for row in given)
    ]
    return tabulate(
        [[_cell(row[column]) for column in shown] for row in given],
        [_cell(header[column]) for column in shown],
        tablefmt="pipe",
        colalign=["left" if column < left else "right" for column in shown],
        # Cells are written above: 10.0 is to stay 10.0.
        disable_numparse=True,
        # Of the cells, whose blanks at the front no reader sees.
        preserve_whitespace=False,
    )


def details(summary: str, body: str) -> str:
    """What is folded until a reader opens it; nothing where there is nothing."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>" if body else ""


def join(blocks: Iterable[str]) -> str:
    """Blocks of Markdown one after the other; empty ones are left out."""
    return "\n\n".join(block for block in blocks if block)


def slug(text: str) -> str:
    """A part of a file's name.

    >>> slug("Shop A/2024")
    'shop-a-2024'
    """
    return re.sub(r"[^\w.]+", "-", text.lower()).strip("-.") or "data"


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Parts of files' names for names of which each has files of its own.

    >>> slugs(["Shop A", "diginetica"])
    {'Shop A': 'shop-a', 'diginetica': 'diginetica'}
    >>> found = slugs(["Shop A", "shop-a"])
    >>> len(set(found.values())), found["Shop A"].startswith("shop-a-")
    (2, True)
    """
    given = dict.fromkeys(names)
    often = Counter(map(slug, given))

    def told_apart(name: str) -> str:
        return f"{slug(name)}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"

    return {name: slug(name) if often[slug(name)] == 1 else told_apart(name) for name in given}


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _bounds(low: str, high: str) -> str:
    return "" if BLANK in (low, high) else f" [{low}, {high}]"


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")

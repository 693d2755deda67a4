"""Small pieces of what is said to people: names on one line, bars, shares, what a ratio allows."""

from __future__ import annotations

import math

__all__ = ["allowed", "bar", "percent", "shown"]


def shown(value: object) -> str:
    r"""An id or a name as one line of text: what would move the cursor or hide is escaped.

    >>> print(shown(f"a{chr(10)}b"), shown(7))
    a\nb 7
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def bar(share: float, width: int = 12) -> str:
    """A share in [0, 1] as a bar; the smallest that is not 0 can be seen.

    >>> bar(0.5, 4), bar(0.001, 4), bar(0.0, 4)
    ('██', '▏', '')
    """
    full = int(share * width + 0.5)
    return "█" * full if full else "▏" * (share > 0)


def percent(part: float, whole: float) -> str:
    """A part of a whole in percent, eight characters.

    >>> percent(1, 8), percent(0, 0)
    ('  12.5 %', '   0.0 %')
    """
    return f"{100 * part / whole if whole else 0.0:6.1f} %"


def allowed(ratio: float, total: int) -> int:
    """The budget that a ratio stands for, rounded down: from the nearest decimal, not from a float's dust.

    >>> allowed(0.07, 100), allowed(0.3, 906_140)
    (7, 271842)
    """
    return math.floor(round(ratio * total, 6))

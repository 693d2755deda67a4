"""Small pieces of what is said to people: names on one line, bars, shares, causes, what a ratio allows."""

from __future__ import annotations

import math

from prune_lib.redaction import redacted

__all__ = ["allowed", "bar", "first_line", "percent", "short", "shown"]


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


def short(value: object, limit: int = 60) -> str:
    """A value for a message, cut to a length.

    >>> short(None), short("abcdefgh", 6)
    ('null', 'abc...')
    """
    text = "null" if value is None else str(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def first_line(problem: BaseException) -> str:
    r"""What an error says, in one line without a full stop; of Java's, its own message; no secret of it.

    >>> first_line(ValueError(f"No answer from http://me:word@host.{chr(10)}at line 7"))
    'No answer from http://***@host'
    >>> first_line(KeyError())
    'KeyError'
    """
    text = str(problem)
    java = getattr(problem, "java_exception", None)  # py4j's
    if java is not None:
        text = str(java.getMessage() or java.toString())
    lines = text.strip().splitlines() or [type(problem).__name__]
    return short(redacted(lines[0].rstrip(".")), 200)

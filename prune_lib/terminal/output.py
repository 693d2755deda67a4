"""The result of a job on stdout: a page for people, in colours on a terminal, or one JSON object."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from prune_lib.terminal.streams import stdout_is_terminal

__all__ = ["print_json", "print_text", "to_json"]

# What stands for a character that stdout's encoding lacks; anything else becomes a question mark.
_PLAIN = {"█": "#", "▏": "|", "→": "->", "−": "-", "×": "x", "…": "...", "·": "-"}

# What is drawn how on a terminal: lines that head a block, and what an eye looks for.
_STYLES = (
    (r"(?m)^\S.*$", "bold"),
    (r"(?m)^  [a-z]+( because)?(?= |$)", "bold"),
    (r"[█▏]+", "cyan"),
    (r"(?m)^  warnings?\n(    .*\n)+", "yellow"),
    (r"(?m)^  (SELECT|FROM|GROUP BY|spark-submit)\b.*$", "green"),
)


def print_text(text: str) -> None:
    """Write a page to stdout, in colours where that is a terminal (bold only where NO_COLOR is set)."""
    if stdout_is_terminal():
        text = _coloured(text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        for char, plain in _PLAIN.items():
            text = text.replace(char, plain)
        text = text.encode(encoding, "replace").decode(encoding)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _coloured(text: str) -> str:
    """The text with a terminal's codes; its own characters are the same, and none is taken for markup."""
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    # Wide: lines are laid out already, and paths are not to be cut.
    console = Console(file=StringIO(), force_terminal=True, width=10_000, highlight=False)
    page = Text(text, no_wrap=True)
    for pattern, style in _STYLES:
        page.highlight_regex(pattern, style)
    with console.capture() as captured:
        console.print(page, soft_wrap=True, end="")
    return captured.get()


def print_json(value: object) -> None:
    """Write one JSON object to stdout, on one line."""
    sys.stdout.write(to_json(value) + "\n")
    sys.stdout.flush()


def to_json(value: object) -> str:
    r"""Any result as JSON that every reader takes: ASCII, dates in ISO 8601, null for what is no number.

    >>> print(to_json({"when": date(2026, 1, 2), "share": float("nan"), "ids": ("a\n", 7)}))
    {"when": "2026-01-02", "share": null, "ids": ["a\n", 7]}
    """
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # numpy's numbers
        return _plain(value.item())
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)

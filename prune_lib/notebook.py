"""A run as a table for notebooks: self-contained HTML, right on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from prune_lib.schemas import KEPT_REASONS, PRUNED_REASONS
from prune_lib.summary import WHY, tables_of, used_of, window_of
from prune_lib.wording import percent, shown

__all__ = ["table_of"]

# Colours are those of the page's own text: a notebook's theme may be light or dark.
_CELL = "text-align:{};padding:2px 10px;vertical-align:top;background:none"
_BAR = "display:inline-block;height:.7em;background:currentColor;opacity:.45;width:{:.1f}em"
_FAINT = "opacity:.7"


def table_of(run: Mapping[str, Any], output: str) -> str:
    """A run in HTML: counts, reasons with bars, tables, warnings; ids and paths are text, whatever they hold.

    Args:
        run: its row of the runs table.
        output: the pruned table.
    """
    used, budget, _ = used_of(run)
    head = (
        f"{100 * run['ratio']:g} % of the {run['budget']} of {shown(run['input'])}{window_of(run)}: "
        f"{used:,} of a budget of {budget:,}"
    )
    rows = "".join((*_counts(run), *_reasons(run), *_places(output), *_warnings(run)))
    return (
        '<table style="border-collapse:collapse;border:none;font-size:90%">'
        f'<caption style="{_CELL.format("left")};color:inherit"><b>Pruned</b> {escape(head)}</caption>'
        f"<tbody>{rows}</tbody></table>"
    )


def _counts(run: Mapping[str, Any]) -> Iterator[str]:
    samples = run.get("unit") == "prefix"
    names = {"sessions": "samples" if samples else "sessions", "items": "targets" if samples else "items"}
    names |= {} if samples else {"interactions": "interactions"}
    for what, name in names.items():
        after, before = run[f"{what}_after"], run[f"{what}_before"]
        yield _row(name, f"{after:,}", f"of {before:,}", percent(after, before).strip())
    if run["duplicates_before"] is not None:
        before = run["duplicates_before"]
        removed = before - run["duplicates_after"]
        yield _row("duplicates removed", f"{removed:,}", f"of {before:,}", percent(removed, before).strip())


def _reasons(run: Mapping[str, Any]) -> Iterator[str]:
    for group in (KEPT_REASONS, PRUNED_REASONS):
        there = {name: run["reasons"][name] for name in group if run["reasons"].get(name)}
        for name, count in there.items():
            share = count / sum(there.values())
            drawn = f'<span style="{_BAR.format(max(0.1, 8 * share))}"></span>'
            yield _row(name, f"{count:,}", WHY[name], drawn, html=True)


def _places(output: str) -> Iterator[str]:
    for kind, place in tables_of(output).items():
        yield _wide(f"{kind} table", f"<code>{escape(shown(place))}</code>")


def _warnings(run: Mapping[str, Any]) -> Iterator[str]:
    for text in run["warnings"] or []:
        yield _wide("warning", escape(shown(text)))


def _row(name: str, number: str, text: str, last: str, html: bool = False) -> str:
    return (
        "<tr style='background:none'>"
        f'<td style="{_CELL.format("left")}">{escape(name)}</td>'
        f'<td style="{_CELL.format("right")}">{escape(number)}</td>'
        f'<td style="{_CELL.format("left")};{_FAINT}">{escape(text)}</td>'
        f'<td style="{_CELL.format("left")}">{last if html else escape(last)}</td></tr>'
    )


def _wide(name: str, html: str) -> str:
    return (
        f"<tr style='background:none'><td style=\"{_CELL.format('left')}\">{escape(name)}</td>"
        f'<td colspan="3" style="{_CELL.format("left")}">{html}</td></tr>'
    )

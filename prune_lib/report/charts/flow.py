"""All sessions flow to kept and pruned, and from there to the reasons."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import numpy as np
import pandas as pd

from prune_lib.report.charts.parts import Spec, specification

__all__ = ["REASON_COLOURS", "flow"]

REASON_COLOURS = {
    "COLD_ITEM": "@cold_item",
    "NEW_PATTERN": "@new_pattern",
    "REPRESENTATIVE": "@representative",
    "FLOOR": "@floor",
    "METHOD": "@method",
    "DUPLICATE": "@duplicate",
    "COVERED": "@covered",
    "BOT": "@bot",
    "NOISE": "@noise",
    "BUDGET": "@budget",
}
_COLOURS = {"all": "@all", "kept": "@kept", "pruned": "@pruned", **REASON_COLOURS}
_COLUMNS = (0.0, 0.32, 0.64)
_WIDTH = 0.02
#: Between nodes of a column, a share of its height; labels of small ones stand apart by as much.
_GAP, _LABEL = 0.025, 0.06
_STEPS = 24


@dataclass(frozen=True)
class _Node:
    name: str
    column: int
    top: float
    bottom: float
    sessions: int


def flow(reasons: pd.DataFrame, unit: str) -> Spec:
    """The flow of sessions.

    Args:
        reasons: reason, kept, sessions.
        unit: what they are called: sessions, or samples.
    """
    total = int(reasons["sessions"].sum())
    kept = reasons[reasons["kept"]]
    pruned = reasons[~reasons["kept"]]
    sides = [("kept", int(kept["sessions"].sum())), ("pruned", int(pruned["sessions"].sum()))]
    leaves = list(
        zip([*kept["reason"], *pruned["reason"]], [*kept["sessions"], *pruned["sessions"]], strict=True)
    )
    columns = [[(f"all {unit}", total)], [s for s in sides if s[1]], leaves]
    nodes = [node for number, column in enumerate(columns) for node in _stacked(number, column, total)]
    by_name = {node.name: node for node in nodes}
    start = by_name[f"all {unit}"]
    links = []
    at = start.top
    for side, size in columns[1]:
        node = by_name[side]
        links.append(_ribbon(side, start, at, node, node.top, size / total))
        at += (start.bottom - start.top) * size / total
        inner = node.top
        of_side = kept if side == "kept" else pruned
        for reason, sessions in zip(of_side["reason"], of_side["sessions"], strict=True):
            leaf = by_name[reason]
            links.append(_ribbon(reason, node, inner, leaf, leaf.top, sessions / total))
            inner += leaf.bottom - leaf.top
    ribbons = pd.concat(links, ignore_index=True)
    bars = pd.DataFrame(
        {
            "name": [n.name for n in nodes],
            "role": ["all" if n.column == 0 else n.name for n in nodes],
            "x": [_COLUMNS[n.column] for n in nodes],
            "x2": [_COLUMNS[n.column] + _WIDTH for n in nodes],
            "y": [n.top for n in nodes],
            "y2": [n.bottom for n in nodes],
            "sessions": [n.sessions for n in nodes],
            "share": [n.sessions / total for n in nodes],
            "label": [f"{n.name}  {_share(n.sessions / total)}" for n in nodes],
            "label_y": _labels(nodes),
        }
    )
    colour = alt.Color(
        "role:N",
        scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
        legend=None,
    )
    across = alt.X("x:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=None)
    tooltip = [
        alt.Tooltip("name:N", title="reason"),
        alt.Tooltip("sessions:Q", title=unit, format=","),
        alt.Tooltip("share:Q", title="share of all", format=".2%"),
    ]
    # Room for the last label, which those before it may have pushed below its node.
    lowest = max(*(n.bottom for n in nodes), *bars["label_y"])
    down = alt.Scale(domain=[lowest + _LABEL / 2, -_LABEL / 2], nice=False)
    curves = (
        alt.Chart(ribbons)
        .mark_area(opacity=0.35, interpolate="monotone")
        .encode(x=across, y=alt.Y("y:Q", scale=down, axis=None), y2="y2:Q", color=colour, detail="name:N")
    )
    blocks = (
        alt.Chart(bars)
        .mark_rect()
        .encode(
            x=across,
            x2="x2:Q",
            y=alt.Y("y:Q", scale=down, axis=None),
            y2="y2:Q",
            color=colour,
            tooltip=tooltip,
        )
    )
    words = (
        alt.Chart(bars)
        .mark_text(align="left", dx=8, baseline="middle", fontSize=12, color="@ink")
        .encode(x=alt.X("x2:Q"), y=alt.Y("label_y:Q", scale=down, axis=None), text="label:N")
    )
    described = ", ".join(f"{n.name} {n.sessions:,} {unit}" for n in nodes)
    return specification(curves + blocks + words, f"Flow from all {unit} to the reasons: {described}.", 340)


def _share(share: float) -> str:
    """A share in a label.

    >>> _share(0.1234), _share(0.0001)
    ('12.3 %', '< 0.1 %')
    """
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else "< 0.1 %"


def _stacked(column: int, sizes: list[tuple[str, int]], total: int) -> list[_Node]:
    """Nodes of a column one under the other; gaps are taken from what all columns have alike."""
    at, out = 0.0, []
    for name, size in sizes:
        height = size / total * (1.0 - 4 * _GAP)
        out.append(_Node(name, column, at, at + height, size))
        at += height + _GAP
    return out


def _labels(nodes: list[_Node]) -> list[float]:
    """Where the labels stand: in the middle of their nodes, but never one on another."""
    out: list[float] = []
    for number, node in enumerate(nodes):
        middle = (node.top + node.bottom) / 2
        before = number > 0 and nodes[number - 1].column == node.column
        out.append(max(middle, out[-1] + _LABEL) if before else middle)
    return out


def _ribbon(
    name: str, source: _Node, source_at: float, target: _Node, target_at: float, share: float
) -> pd.DataFrame:
    """The curve from a place in one node to one in another, as wide as the share it carries."""
    height = share * (1.0 - 4 * _GAP)
    t = np.linspace(0.0, 1.0, _STEPS)
    eased = t * t * (3.0 - 2.0 * t)
    start, end = _COLUMNS[source.column] + _WIDTH, _COLUMNS[target.column]
    top = source_at + (target_at - source_at) * eased
    out: pd.DataFrame = pd.DataFrame(
        {
            "name": name,
            "role": name,
            "x": (start + (end - start) * t).round(4),
            "y": top.round(4),
            "y2": (top + height).round(4),
        }
    )
    return out

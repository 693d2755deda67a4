"""The map of sessions, and one session among its neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from prune_lib.report.charts.flow import REASON_COLOURS
from prune_lib.report.charts.parts import Spec, specification
from prune_lib.report.facts import Neighbourhood

__all__ = ["MAP_COLUMNS", "POINTS", "colourings", "neighbourhood", "session_map"]

#: The data set that the page's script fills with the points.
POINTS = "points"
#: Columns of a point, as the page gives them.
MAP_COLUMNS = ("x", "y", "session", "items", "difficulty", "cluster", "reason", "kept", "rank")
_SHORT = 14


def colourings(clusters: Sequence[str], reasons: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """What the points may be coloured by: encodings of Vega-Lite by name.

    Args:
        clusters: their names.
        reasons: those that occur.
    """
    named = {f"{number + 1}: {name}": f"@cluster{number}" for number, name in enumerate(clusters)}
    return {
        "difficulty": {
            "field": "difficulty",
            "type": "quantitative",
            "title": "difficulty rank",
            "scale": {"scheme": "@ramp", "domain": [0, 1]},
            "legend": {"orient": "top", "gradientLength": 200},
        },
        "cluster": _nominal("cluster", named, 2),
        "reason": _nominal("reason", {name: REASON_COLOURS[name] for name in reasons}, 4),
        "kept or not": _nominal("kept", {"kept": "@kept", "pruned": "@all"}, 2),
    }


def _nominal(field: str, roles: Mapping[str, str], columns: int) -> Mapping[str, Any]:
    return {
        "field": field,
        "type": "nominal",
        "title": None,
        "scale": {"domain": list(roles), "range": list(roles.values())},
        "legend": {"orient": "top", "columns": columns, "symbolType": "circle", "labelLimit": 320},
    }


def session_map(unit: str) -> Spec:
    """The map; its points and their colour come from the page's script.

    Args:
        unit: what sessions are called.
    """
    axis = None
    near = alt.selection_interval(bind="scales", zoom="wheel![event.shiftKey]", name="view_of_map")
    chart = (
        alt.Chart(alt.NamedData(POINTS))
        .mark_circle()
        .encode(
            x=alt.X("x:Q", axis=axis, scale=alt.Scale(domain=[-0.02, 1.02], nice=False)),
            y=alt.Y("y:Q", axis=axis, scale=alt.Scale(domain=[-0.02, 1.02], nice=False)),
            size=alt.condition("datum.kept == 'kept'", alt.value(26), alt.value(9)),
            opacity=alt.condition("datum.kept == 'kept'", alt.value(0.95), alt.value(0.35)),
            tooltip=[
                alt.Tooltip("session:N", title="session"),
                alt.Tooltip("items:N", title="clicks"),
                alt.Tooltip("reason:N"),
                alt.Tooltip("rank:Q", title="rank"),
                alt.Tooltip("difficulty:Q", format=".3f"),
                alt.Tooltip("cluster:N"),
            ],
        )
        .add_params(near)
    )
    return specification(
        chart, f"Map of the {unit}: near each other where the experts expect alike next items.", 560
    )


def neighbourhood(found: Neighbourhood) -> Spec:
    """A session, its items, and the kept sessions that hold them.

    Args:
        found: what is drawn.
    """
    places = {"session": 0.06, "item": 0.42, "kept": 0.72}
    rows = max(len(found.items), len(found.kept), 1)
    nodes: list[dict[str, Any]] = [
        {
            "x": places["session"],
            "y": 0.5,
            "kind": "this session",
            "label": _short(found.session),
            "tells": f"session {found.session}: {found.reason}",
        }
    ]
    at: dict[tuple[str, str], tuple[float, float]] = {("session", ""): (places["session"], 0.5)}
    for kind, entries in (("item", found.items), ("kept", found.kept)):
        for number, entry in enumerate(entries):
            height = (number + 0.5 + (rows - len(entries)) / 2) / rows
            at[kind, entry.id] = (places[kind], height)
            nodes.append(
                {
                    "x": places[kind],
                    "y": height,
                    "kind": {"item": "item", "kept": "kept session"}[kind]
                    if not entry.is_cover
                    else "the kept session that stands for it",
                    "label": _short(entry.label),
                    "tells": entry.tells,
                }
            )
    edges = [
        {"x": start[0], "y": start[1], "x2": end[0], "y2": end[1], "strong": strong}
        for start, end, strong in (
            *((at["session", ""], at["item", e.id], True) for e in found.items),
            *(
                (at["item", item], at["kept", entry.id], entry.is_cover)
                for entry in found.kept
                for item in entry.items
            ),
        )
    ]
    roles = {
        "this session": "@accent",
        "item": "@muted",
        "kept session": "@kept",
        "the kept session that stands for it": "@cold_item",
    }
    there = {kind: role for kind, role in roles.items() if any(n["kind"] == kind for n in nodes)}
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, 1.02], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[1, 0], nice=False))
    rules = (
        alt.Chart(pd.DataFrame(edges, columns=["x", "y", "x2", "y2", "strong"]))
        .mark_rule(color="@muted")
        .encode(
            x=x,
            y=y,
            x2="x2:Q",
            y2="y2:Q",
            strokeWidth=alt.condition("datum.strong", alt.value(2), alt.value(1)),
            opacity=alt.condition("datum.strong", alt.value(0.9), alt.value(0.35)),
        )
    )
    base = alt.Chart(pd.DataFrame(nodes)).encode(x=x, y=y)
    points = base.mark_circle(size=130, opacity=1).encode(
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=list(there), range=list(there.values())),
            legend=alt.Legend(orient="top", columns=2, symbolType="circle", labelLimit=320),
        ),
        tooltip=[alt.Tooltip("tells:N", title="what")],
    )
    # Lines pass behind the words: a halo of the paper's colour keeps them readable.
    word = {"align": "left", "dx": 10, "fontSize": 11}
    halo = base.mark_text(**word, stroke="@paper", strokeWidth=4, color="@paper").encode(text="label:N")
    words = halo + base.mark_text(**word, color="@ink").encode(text="label:N")
    kept = ", ".join(entry.label for entry in found.kept)
    return specification(
        rules + points + words,
        f"Session {found.session}, its items, and the kept sessions that hold them: {kept}.",
        max(220, 30 * rows + 40),
    )


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"

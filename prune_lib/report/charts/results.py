"""Performance against the ratio, as an evaluation measured it."""

from __future__ import annotations

import altair as alt
import pandas as pd

from prune_lib.report.charts.parts import PERCENT, Spec, coloured, specification

__all__ = ["performance"]

_OURS, _RANDOM, _OTHERS, _ALL = "graph (ours)", "random", "other methods", "all the data"
_ROLES = {_OURS: "@kept", _RANDOM: "@accent", _OTHERS: "@muted", _ALL: "@ink"}


def performance(rows: pd.DataFrame, target: str) -> Spec:
    """Recall@20 of one target against the ratio.

    Args:
        rows: see `facts.Measured`.
        target: the recommender.
    """
    own = rows[rows["target"] == target]
    names = {"graph": _OURS, "random": _RANDOM, "all": _ALL}
    data = own.assign(who=[names.get(m, _OTHERS) for m in own["method"]]).round(5)
    there = {name: role for name, role in _ROLES.items() if (data["who"] == name).any()}
    pruned = data[data["method"] != "all"]
    whole = data[data["method"] == "all"]
    x = alt.X("ratio:Q", title="share of the interactions kept", axis=alt.Axis(format=PERCENT))
    y = alt.Y("mean:Q", title="Recall@20", axis=alt.Axis(format=PERCENT), scale=alt.Scale(zero=False))
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("ratio:Q", format=".3~%"),
        alt.Tooltip("mean:Q", title="Recall@20", format=".2%"),
        alt.Tooltip("low:Q", title="95 % from", format=".2%"),
        alt.Tooltip("high:Q", title="to", format=".2%"),
        alt.Tooltip("seeds:Q"),
    ]
    base = alt.Chart(pruned).encode(
        x=x, y=y, color=coloured("who:N", there), detail="method:N", tooltip=tooltip
    )
    spread = (
        alt.Chart(pruned)
        .mark_area(opacity=0.15)
        .encode(
            x=x,
            y=alt.Y("low:Q", title="Recall@20", scale=alt.Scale(zero=False)),
            y2="high:Q",
            color=coloured("who:N", there),
            detail="method:N",
        )
    )
    full = (
        alt.Chart(whole)
        .mark_rule(strokeDash=[5, 4], strokeWidth=2)
        .encode(y=alt.Y("mean:Q"), color=coloured("who:N", there), tooltip=tooltip)
    )
    chart = spread + base.mark_line(strokeWidth=2) + base.mark_point(size=36, filled=True, opacity=1) + full
    return specification(chart, f"Recall@20 of {target} against the share of the interactions kept.", 220)

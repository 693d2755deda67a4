"""Coverage against the budget, from the nested ranks."""

from __future__ import annotations

import altair as alt
import pandas as pd

from prune_lib.report.charts.parts import PERCENT, Spec, coloured, specification
from prune_lib.report.facts import BANDS

__all__ = ["CHOSEN", "coverage"]

#: The parameter of the chart that the page's slider sets: the share of the interactions.
CHOSEN = "chosen"
_SERIES = {"popular items": "@all", "mid items": "@representative", "cold items": "@cold_item"}
_OBJECTIVE = "objective"


def coverage(curve: pd.DataFrame, items: pd.DataFrame, interactions: int) -> Spec:
    """Items covered, by band, and the objective, against the share of interactions kept.

    Args:
        curve: see `tables.curve`.
        items: band, by item.
        interactions: of all the data.
    """
    of_band = items["band"].value_counts()
    share = curve["interactions"] / interactions
    parts = [
        pd.DataFrame(
            {"kept": share, "value": curve[band] / int(of_band[band]), "what": f"{band} items"},
        )
        for band in BANDS
        if of_band.get(band, 0)
    ]
    roles = {name: role for name, role in _SERIES.items() if name.split()[0] in of_band}
    if curve["objective"].notna().any():
        parts.append(pd.DataFrame({"kept": share, "value": curve["objective"], "what": _OBJECTIVE}))
        roles[_OBJECTIVE] = "@accent"
    data = pd.concat(parts, ignore_index=True).round(5)
    x = alt.X("kept:Q", title="share of the interactions kept", axis=alt.Axis(format=PERCENT))
    chosen = alt.param(name=CHOSEN, value=float(share.iloc[-1]))
    base = alt.Chart(data).encode(
        x=x,
        y=alt.Y("value:Q", title="share covered", axis=alt.Axis(format=PERCENT)),
        color=coloured("what:N", roles),
    )
    points = base.mark_point(size=16, filled=True, opacity=0).encode(
        tooltip=[
            alt.Tooltip("what:N", title="covered"),
            alt.Tooltip("value:Q", title="share", format=".1%"),
            alt.Tooltip("kept:Q", title="interactions kept", format=".2%"),
        ]
    )
    rule = (
        alt.Chart(pd.DataFrame({"one": [1]}))
        .mark_rule(color="@ink", strokeWidth=2)
        # In pixels: a place on the axis would count among what the axis has to show.
        .encode(x=alt.value(alt.ExprRef(f"scale('x', {CHOSEN})")))
        .add_params(chosen)
        .properties(name=f"{CHOSEN}_budget")
    )
    return specification(
        base.mark_line(strokeWidth=2) + points + rule,
        "Share of the cold, mid and popular items covered, and of the objective reached, by the share of the "
        "interactions kept.",
        300,
    )

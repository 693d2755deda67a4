"""Popularity of the items before and after, and what was kept of each."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from prune_lib.report.charts.parts import PERCENT, Spec, coloured, lines, specification
from prune_lib.report.facts import BANDS

__all__ = ["kept_by_popularity", "long_tail", "popularity_groups"]

#: Points of a line over ranks, which lie evenly on a logarithmic axis.
_POINTS = 160
#: Groups of items by popularity to a factor of ten.
_GROUPS_PER_DECADE = 6
_SIDES = {"before": "@all", "after": "@kept"}


def _ranked(values: pd.Series, side: str) -> pd.DataFrame:
    """Number of sessions by rank, from the most popular item on, thinned out evenly on a log axis."""
    falling = np.sort(values.to_numpy(np.int64))[::-1]
    falling = falling[falling > 0]
    ranks = np.unique(np.geomspace(1, max(len(falling), 1), _POINTS).round().astype(int))[: len(falling)]
    ranks = ranks[ranks <= len(falling)]
    out: pd.DataFrame = pd.DataFrame({"rank": ranks, "sessions": falling[ranks - 1], "side": side})
    return out


def long_tail(items: pd.DataFrame, unit: str) -> Spec:
    """Sessions by an item's rank, before and after, both axes logarithmic.

    Args:
        items: band, sessions_before, sessions_after.
        unit: what they are called: sessions, or samples.
    """
    both = pd.concat(
        [_ranked(items["sessions_before"], "before"), _ranked(items["sessions_after"], "after")],
        ignore_index=True,
    )
    of_band = items["band"].value_counts()
    popular, mid, cold = (int(of_band.get(band, 0)) for band in reversed(BANDS))
    begins = {"mid": popular if mid else 0, "cold": popular + mid if cold else 0}
    # Between the last item of a band and the first of the next; the first band has none, nor an empty one.
    edges = [(before + 0.5, f"{band} ▸") for band, before in begins.items() if before]
    bounds = pd.DataFrame(edges, columns=["rank", "label"])
    x = alt.X("rank:Q", title="rank of the item by popularity", scale=alt.Scale(type="log", nice=False))
    curve = (
        alt.Chart(both)
        .mark_line(strokeWidth=2)
        .encode(
            x=x,
            y=alt.Y("sessions:Q", title=f"{unit} that hold it", scale=alt.Scale(type="log")),
            color=coloured("side:N", _SIDES),
        )
    )
    points = (
        alt.Chart(both)
        .mark_point(size=26, filled=True)
        .encode(
            x=x,
            y="sessions:Q",
            color=coloured("side:N", _SIDES),
            tooltip=[
                alt.Tooltip("side:N", title="pruning"),
                alt.Tooltip("rank:Q", format=","),
                alt.Tooltip("sessions:Q", title=unit, format=","),
            ],
        )
    )
    rules = alt.Chart(bounds).mark_rule(strokeDash=[3, 3], color="@muted").encode(x="rank:Q")
    words = (
        alt.Chart(bounds)
        .mark_text(align="left", dx=4, baseline="top", color="@muted")
        .encode(x="rank:Q", y=alt.value(2), text="label:N")
    )
    return specification(
        rules + words + curve + points,
        f"Number of {unit} by the rank of the item, before and after pruning, on logarithmic axes.",
    )


def popularity_groups(items: pd.DataFrame) -> pd.DataFrame:
    """Items in groups of like popularity.

    Args:
        items: sessions_before, sessions_after.

    Returns:
        popularity (mean sessions before), items, share (of the group's session-item pairs kept), low and high
        (quartiles of the items' own shares), lost (share of its items that no kept session holds).
    """
    before = items["sessions_before"].to_numpy(np.int64)
    after = items["sessions_after"].to_numpy(np.int64)
    held = before > 0
    before, after = before[held], after[held]
    group = np.floor(np.log10(before) * _GROUPS_PER_DECADE).astype(int)
    frame = pd.DataFrame({"group": group, "before": before, "after": after, "own": after / before})
    grouped = frame.groupby("group")
    out = pd.DataFrame(
        {
            "popularity": grouped["before"].mean(),
            "items": grouped.size(),
            "share": grouped["after"].sum() / grouped["before"].sum(),
            "low": grouped["own"].quantile(0.25),
            "high": grouped["own"].quantile(0.75),
            "lost": grouped["after"].apply(lambda kept: float((kept == 0).mean())),
        }
    )
    groups: pd.DataFrame = out.reset_index(drop=True)
    return groups


def kept_by_popularity(groups: pd.DataFrame, unit: str) -> Spec:
    """Share kept, and share of items lost, by popularity.

    Args:
        groups: see `popularity_groups`.
        unit: what sessions are called.
    """
    x = alt.X("popularity:Q", title=f"{unit} that hold the item, before", scale=alt.Scale(type="log"))
    axis = alt.Axis(format=PERCENT)
    quartiles = (
        alt.Chart(groups)
        .mark_area(opacity=0.18, color="@kept")
        .encode(x=x, y=alt.Y("low:Q", title="share", axis=axis), y2="high:Q")
    )
    long = groups.melt(
        id_vars=["popularity", "items"], value_vars=["share", "lost"], var_name="what", value_name="value"
    ).replace({"what": {"share": f"{unit} kept", "lost": "items lost"}})
    roles = {f"{unit} kept": "@kept", "items lost": "@pruned"}
    marks = lines(
        long,
        x,
        alt.Y("value:Q", title="share", axis=axis),
        coloured("what:N", roles),
        [
            alt.Tooltip("what:N", title="share of"),
            alt.Tooltip("popularity:Q", title="mean popularity", format=",.1f"),
            alt.Tooltip("items:Q", format=","),
            alt.Tooltip("value:Q", title="share", format=".1%"),
        ],
    )
    return specification(
        quartiles + marks, f"Share of the {unit} kept, and of the items lost, by popularity of the item."
    )

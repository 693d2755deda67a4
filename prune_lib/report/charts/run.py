"""Seconds of the run by stage; sessions by length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from prune_lib.report.charts.parts import PERCENT, Spec, coloured, lines, specification

__all__ = ["by_length", "seconds_by_stage"]


def seconds_by_stage(stages: Sequence[Any]) -> Spec:
    """Bars, in the order of the stages.

    Args:
        stages: of the runs table: name, seconds, rows.
    """
    data = pd.DataFrame([{"stage": s["name"], "seconds": s["seconds"], "rows": s["rows"]} for s in stages])
    bars = (
        alt.Chart(data)
        .mark_bar(color="@all", height={"band": 0.7})
        .encode(
            x=alt.X("seconds:Q"),
            y=alt.Y("stage:N", sort=None, title=None),
            tooltip=[
                alt.Tooltip("stage:N"),
                alt.Tooltip("seconds:Q", format=",.1f"),
                alt.Tooltip("rows:Q", format=","),
            ],
        )
    )
    return specification(bars, "Seconds of the run by stage.", 24 * len(data) + 40)


def by_length(lengths: pd.DataFrame, unit: str) -> Spec:
    """How long all sessions and the kept ones are.

    Args:
        lengths: interactions, kept, sessions.
        unit: what they are called.
    """
    parts = []
    for name, rows in ((f"all {unit}", lengths), ("kept", lengths[lengths["kept"]])):
        counted = rows.groupby("interactions", as_index=False)["sessions"].sum()
        parts.append(counted.assign(of=name, share=counted["sessions"] / counted["sessions"].sum()))
    data = pd.concat(parts, ignore_index=True).round(6)
    longest = int(data["interactions"].max())
    chart = lines(
        data,
        alt.X("interactions:Q", title=f"clicks ({longest}: that or more)" if longest >= 20 else "clicks"),
        alt.Y("share:Q", title=f"share of the {unit}", axis=alt.Axis(format=PERCENT)),
        coloured("of:N", {f"all {unit}": "@all", "kept": "@kept"}),
        [
            alt.Tooltip("of:N"),
            alt.Tooltip("interactions:Q", title="clicks"),
            alt.Tooltip("sessions:Q", title=unit, format=","),
            alt.Tooltip("share:Q", format=".1%"),
        ],
    )
    return specification(chart, f"Length of all {unit} and of those kept.")

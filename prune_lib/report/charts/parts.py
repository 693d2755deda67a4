"""What all charts share: colours by role, axes, how a chart becomes a specification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

__all__ = ["EXPERT_COLOURS", "LABELS", "PERCENT", "Spec", "coloured", "lines", "specification"]

Spec = dict[str, Any]

PERCENT = "~%"
#: Names of experts and of what is compared, as people read them.
LABELS = {"gnn": "GNN", "rnn": "RNN", "transformer": "transformer", "mixture": "mixture"}
EXPERT_COLOURS = {"GNN": "@gnn", "RNN": "@rnn", "transformer": "@transformer", "mixture": "@ink"}
_HEIGHT = 260


def specification(chart: Any, describes: str, height: int = _HEIGHT) -> Spec:
    """A chart as Vega-Lite, as wide as its place on the page.

    Args:
        chart: of Altair.
        describes: what a screen reader says of it.
        height: pixels.
    """
    sized = chart.properties(width="container", height=height, description=describes)
    spec: Spec = sized.configure(autosize=alt.AutoSizeParams(type="fit", contains="padding")).to_dict()
    # The page gives the look, by theme.
    spec.pop("$schema")
    spec.pop("config", None)
    spec["autosize"] = {"type": "fit", "contains": "padding"}
    return spec


def coloured(field: str, colours: dict[str, str], title: str | None = None) -> Any:
    """The colour of a nominal field by role; the legend is above the chart, in this order."""
    return alt.Color(
        field,
        type="nominal",
        title=title,
        scale=alt.Scale(domain=list(colours), range=list(colours.values())),
        legend=alt.Legend(orient="top", symbolType="stroke", symbolStrokeWidth=3),
    )


def lines(
    data: pd.DataFrame,
    x: Any,
    y: Any,
    colour: Any,
    tooltip: Sequence[Any],
    *,
    dash: Any = None,
) -> Any:
    """Lines with a point at each value, which is what can be pointed at."""
    base = alt.Chart(data).encode(x=x, y=y, color=colour, tooltip=list(tooltip))
    line = base.mark_line(strokeWidth=2)
    if dash is not None:
        line = line.encode(strokeDash=dash)
    return line + base.mark_point(size=30, filled=True, opacity=1)

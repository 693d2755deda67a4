"""Figures: Recall@20 against what is kept, a panel for every target."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from prune_lib.evaluation.sections.part import RECALL, Found, Part
from prune_lib.evaluation.sections.text import slug

__all__ = ["recall_figure"]

# Text stays text, for small files that can be searched; ids do not depend on the run.
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "prune-lib", "font.size": 9.0}
# Ours and random stand out; the others are told apart by colour and mark (Okabe and Ito's palette).
_LOOKS: Mapping[str, tuple[str, str]] = {
    "graph": ("#0072b2", "o"),
    "random": ("#d55e00", "s"),
    "recent": ("#009e73", "^"),
    "item-quota": ("#cc79a7", "v"),
    "ccs": ("#e69f00", "D"),
    "moderate": ("#56b4e9", "P"),
    "d2": ("#6a3d9a", "p"),
    "dual": ("#1b7837", "*"),
    "hardest": ("#8c564b", "X"),
    "easiest": ("#b0a000", "<"),
}
_OTHER_LOOKS = ("#555555", ">")
_ALL = "#444444"
_INK = "#222222"
_PANEL = (2.9, 2.3)  # inches
_COLUMNS = 3
_LEGEND = 0.45  # inches


def recall_figure(part: Part, regime: str, folder: Path, data_set: str) -> str:
    """Draw a data set and regime to an SVG file: equal numbers give equal bytes.

    Args:
        part: the numbers.
        regime: of training.
        folder: where the file is written.
        data_set: what the file's name calls the data set.

    Returns:
        The file's name; empty where there is nothing to draw.
    """
    lines = _lines(part, regime)
    targets = [target for target in part.names("target", regime=regime) if target in lines]
    if not targets:
        return ""
    columns = min(_COLUMNS, len(targets))
    rows = math.ceil(len(targets) / columns)
    name = f"recall-{data_set}-{slug(part.split)}-{slug(regime)}.svg"
    with matplotlib.rc_context(_STYLE):
        height = _PANEL[1] * rows + _LEGEND
        figure = Figure(figsize=(max(_PANEL[0] * columns, 5.2), height), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        ratios = sorted({ratio for of in lines.values() for line in of.values() for ratio in line})
        for place, axes in enumerate(panels.flat):
            if place < len(targets):
                _panel(axes, part, regime, targets[place], lines[targets[place]], ratios)
                # A panel with none below it says itself what its axis is.
                if place + columns >= len(targets):
                    axes.tick_params(labelbottom=True)
            else:
                axes.remove()
        figure.supxlabel("interactions kept", color=_INK, fontsize=9)
        figure.supylabel("Recall@20 (%)", color=_INK, fontsize=9)
        _legend(figure, list(panels.flat)[: len(targets)])
        # No date and no version: the file changes when the numbers do.
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    (folder / name).write_text(_numbered(drawn.getvalue()), encoding="utf-8")
    return name


def _numbered(svg: str) -> str:
    """A drawing whose clip paths are numbered: matplotlib names them by all digits of their coordinates.

    The last of these are of the machine.

    >>> _numbered('<clipPath id="p64ab76be38"/><g clip-path="url(#p64ab76be38)"/>')
    '<clipPath id="clip0"/><g clip-path="url(#clip0)"/>'
    """
    names: dict[str, str] = {}
    return re.sub(r"\bp[0-9a-f]{10}\b", lambda found: names.setdefault(found[0], f"clip{len(names)}"), svg)


def _lines(part: Part, regime: str) -> dict[str, dict[str, dict[float, Found]]]:
    """By target, method and ratio."""
    here = {"regime": regime, "metric": RECALL, "band": "all", "variant": ""}
    # Ours is drawn last, above the others.
    methods = [m for m in part.names("method", **here) if m not in ("all", "graph", "random")]
    out: dict[str, dict[str, dict[float, Found]]] = {}
    for target in part.names("target", **here):
        for method in (*methods, "random", "graph"):
            ratios = part.names("ratio", **here, target=target, method=method)
            found = {ratio: part.get(method, ratio, regime, target) for ratio in ratios}
            line = {ratio: number for ratio, number in found.items() if number}
            if line:
                out.setdefault(target, {})[method] = line
    return out


def _panel(
    axes: Axes,
    part: Part,
    regime: str,
    target: str,
    lines: Mapping[str, Mapping[float, Found]],
    ratios: Sequence[float],
) -> None:
    axes.set_gid(f"panel-{target}")
    axes.set_title(target, fontsize=9.5, color=_INK, loc="left")
    everything = part.get("all", 1.0, regime, target)
    if everything:
        level = axes.axhline(
            100 * everything.mean,
            color=_ALL,
            linewidth=1.0,
            linestyle=(0, (4, 2)),
            label="all the data",
            zorder=1,
        )
        level.set_gid(f"{target}-all")
    for method, line in lines.items():
        colour, sign = _LOOKS.get(method, _OTHER_LOOKS)
        main = method in ("graph", "random")
        xs = list(line)
        (drawn,) = axes.plot(
            xs,
            [100 * found.mean for found in line.values()],
            color=colour,
            marker=sign,
            markersize=4.0 if main else 3.0,
            linewidth=1.6 if main else 0.9,
            label="ours" if method == "graph" else method,
            zorder=3 if main else 2,
        )
        drawn.set_gid(f"{target}-{method}")
        lows = [100 * found.value.low for found in line.values()]
        highs = [100 * found.value.high for found in line.values()]
        if not any(map(math.isnan, (*lows, *highs))):
            band: Artist
            if len(xs) > 1:
                alpha = 0.18 if main else 0.08
                band = axes.fill_between(xs, lows, highs, color=colour, alpha=alpha, linewidth=0, zorder=1)
            else:
                band = axes.vlines(xs, lows, highs, colors=colour, linewidth=1.0, zorder=1)
            band.set_gid(f"{target}-{method}-interval")
    _axes(axes, ratios)


def _axes(axes: Axes, ratios: Sequence[float]) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(ratios)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if len(ratios) == 1:  # a single point has no width of its own
        axes.set_xlim(ratios[0] / 2, ratios[0] * 2)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=8, left=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels; ours first."""
    found: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    first = [label for label in ("ours", "random", "all the data") if label in found]
    labels = first + [label for label in found if label not in first]
    figure.legend(
        [found[label] for label in labels],
        labels,
        loc="outside upper center",
        ncols=min(5, len(labels)),
        frameon=False,
        fontsize=8.5,
    )

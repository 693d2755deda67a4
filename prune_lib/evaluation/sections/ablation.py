"""Ablations: the method with a piece taken out, beside the method as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from prune_lib.evaluation.sections.part import NOTHING, RECALL, Part
from prune_lib.evaluation.sections.text import BLANK, join, kept, percent, points, table
from prune_lib.evaluation.variants import ABLATIONS

__all__ = ["ablations"]

# A table with more columns of results than this does not fit a page, and is split by ratio.
_COLUMNS = 9
# Metric, band and name of what the last columns show the mean difference of.
_MEANS = ((RECALL, "all", "mean"), ("mrr@20", "all", "mean MRR@20"), (RECALL, "cold", "mean cold Recall@20"))

_Cells = Sequence[tuple[float, str]]


def ablations(part: Part) -> str:
    """Recall@20 of every variant, and its difference to the method as it is."""
    blocks = []
    groups = _groups(part)
    for regime in part.names("regime", variant=tuple(v for of in groups.values() for v in of)):
        for group, variants in groups.items():
            here = {"method": "graph", "variant": tuple(variants), "regime": regime, "metric": RECALL}
            ratios = part.names("ratio", **here)
            cells = [(r, t) for r in ratios for t in part.names("target", **here, ratio=r)]
            split = [cells] if len(cells) <= _COLUMNS else [[c for c in cells if c[0] == r] for r in ratios]
            tables = [_table(part, regime, variants, some) for some in split]
            if any(tables):
                blocks.append(join([f"*{group}* ({regime})", *tables]))
    if not blocks:
        return ""
    intro = (
        f"On the {part.split} split. Recall@20 in percent, in brackets the difference to the method as it "
        "is, of the same seeds, in points, with * where its 95 % interval over test sessions excludes 0; the "
        "last columns are mean differences over those of the others that every row of the table has. "
        + _noise(part)
    )
    return join([intro.strip(), *blocks])


def _groups(part: Part) -> dict[str, list[str]]:
    """Variants by what they are about, in the order of the ablations; a unit of pruning is none of them."""
    there = [v for v in part.names("variant", method="graph") if v and not v.startswith("unit=")]
    if not there:
        return {}
    order = {name: (i, variant.group) for i, (name, variant) in enumerate(ABLATIONS.items())}
    groups: dict[str, list[str]] = {}
    for name in sorted(there, key=lambda name: order.get(name, (len(order), ""))):
        groups.setdefault(order.get(name, (0, "others"))[1], []).append(name)
    return groups


def _noise(part: Part) -> str:
    """How much the method as it is varies over seeds: differences below that say little."""
    sd = [
        found.sd
        for key, found in part.found.items()
        if key.method == "graph" and not key.variant and key.metric == RECALL and key.band == "all"
    ]
    known = [x for x in sd if not math.isnan(x)]
    if not known:
        return "One seed: differences under a point can be noise."
    mean = percent(sum(known) / len(known))
    return f"Standard deviation over seeds of the method as it is: {mean} on average."


def _table(part: Part, regime: str, variants: Sequence[str], cells: _Cells) -> str:
    named = {"as it is": ("graph", ""), "random": ("random", ""), **{v: ("graph", v) for v in variants}}
    shown = {name: (of, _row(part, regime, *of, cells)) for name, of in named.items()}
    # A variant that was measured on nothing of this table has no row in it.
    shown = {name: row for name, row in shown.items() if any(cell != BLANK for cell in row[1])}
    if not set(shown) & set(variants):
        return ""
    means = _means(part, regime, [of for of, _ in shown.values()], cells)
    rows = [[name, *row, *mean] for (name, (_, row)), mean in zip(shown.items(), means, strict=True)]
    one_ratio = len({ratio for ratio, _ in cells}) == 1
    first = f"kept {kept(cells[0][0])}" if one_ratio else "variant"
    names = [target if one_ratio else f"{target} {kept(ratio)}" for ratio, target in cells]
    return table([first, *names, *(name for _, _, name in _MEANS)], rows, left=1)


def _row(part: Part, regime: str, method: str, variant: str, cells: _Cells) -> list[str]:
    reference = method == "graph" and not variant
    row = []
    for ratio, target in cells:
        value = part.mean(method, ratio, regime, target, variant=variant)
        gap = _gap(part, method, (ratio, target), regime, variant)
        text = percent(value)
        if not reference and not math.isnan(gap):
            text += f" ({points(gap)}{_mark(part, method, (ratio, target), regime, variant)})"
        row.append(text)
    return row


def _means(part: Part, regime: str, rows: Sequence[tuple[str, str]], cells: _Cells) -> list[list[str]]:
    """By row, its mean differences, over the cells that all rows have: means over others say nothing beside.

    A row that has no difference at all (the method as it is has none) leaves no cell out.
    """
    means: list[list[str]] = [[] for _ in rows]
    for metric, band, _ in _MEANS:
        gaps = np.array([[_gap(part, m, cell, regime, v, metric, band) for cell in cells] for m, v in rows])
        gaps[[not variant and method == "graph" for method, variant in rows]] = math.nan
        some = ~np.isnan(gaps).all(axis=1)
        common = ~np.isnan(gaps[some]).any(axis=0)
        for row, own, any_there in zip(means, gaps, some, strict=True):
            row.append(points(own[common].mean()) if any_there and common.any() else BLANK)
    return means


def _gap(
    part: Part,
    method: str,
    cell: tuple[float, str],
    regime: str,
    variant: str,
    metric: str = RECALL,
    band: str = "all",
) -> float:
    """The difference to the method as it is: of the seeds that both have, where that is known."""
    ratio, target = cell
    ours = part.mean("graph", ratio, regime, target, metric, band=band)
    found = part.get(method, ratio, regime, target, metric, band=band, variant=variant)
    if found and not math.isnan(found.over_ours.mean) and not math.isnan(ours):
        return found.over_ours.mean
    return part.mean(method, ratio, regime, target, metric, band=band, variant=variant) - ours


def _mark(part: Part, method: str, cell: tuple[float, str], regime: str, variant: str) -> str:
    """Whether the interval of a difference to the method as it is excludes 0."""
    if method == "random":  # the same difference, the other way round
        gap = part.over_random(cell[0], regime, cell[1])
    else:
        found = part.get(method, cell[0], regime, cell[1], variant=variant)
        gap = found.over_ours if found else NOTHING
    return "*" if gap.low > 0 or gap.high < 0 else ""

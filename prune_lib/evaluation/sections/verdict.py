"""Where ours is above random and where it loses: counted, and every loss named."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prune_lib.evaluation.intervals import Interval
from prune_lib.evaluation.sections.part import RECALL, Part
from prune_lib.evaluation.sections.text import BLANK, difference, kept, percent

__all__ = ["OVERVIEW", "Verdict", "mark", "overview_row", "sentence", "verdict"]

# Goals are set at these ratios; where they are missing, the smallest and the largest there is.
_GAIN_AT, _SHARE_AT = 0.1, 0.3


@dataclass(frozen=True)
class Verdict:
    """Ours beside random over the cells, ratio x target, of a regime.

    Attributes:
        cells: how many could be compared.
        above: in how many ours is above random.
        clear: in how many the whole interval is above 0.
        losses: where ours is below random, with the difference.
        gain: ratio, smallest difference over random's mean at that ratio, target.
        share: ratio, smallest share of all the data's at that ratio, target.
    """

    cells: int
    above: int
    clear: int
    losses: Sequence[str]
    gain: tuple[float, float, str] | None
    share: tuple[float, float, str] | None


def mark(found: Interval) -> str:
    """Sign of a difference that is no clear gain: ▼ a loss, ○ the interval includes 0."""
    return ("▼" if found.mean < 0 else "") + ("○" if found.low <= 0 <= found.high else "")


def verdict(part: Part, regime: str, metric: str = RECALL, band: str = "all") -> Verdict | None:
    """Compare ours with random; None where no cell has both."""
    gaps = {
        cell: gap
        for cell in part.cells(regime, metric, band)
        if not math.isnan((gap := part.over_random(cell[0], regime, cell[1], metric, band)).mean)
    }
    if not gaps:
        return None
    ratios = {ratio for ratio, _ in gaps}
    gain_at = _GAIN_AT if _GAIN_AT in ratios else min(ratios)
    share_at = _SHARE_AT if _SHARE_AT in ratios else max(ratios)
    gains, shares = list[tuple[float, float, str]](), list[tuple[float, float, str]]()
    for (ratio, target), gap in gaps.items():
        random = part.mean("random", ratio, regime, target, metric, band=band)
        everything = part.mean("all", 1.0, regime, target, metric, band=band)
        if ratio == gain_at and random > 0:
            gains.append((ratio, gap.mean / random, target))
        if ratio == share_at and everything > 0:
            mine = part.mean("graph", ratio, regime, target, metric, band=band)
            shares.append((ratio, mine / everything, target))
    return Verdict(
        len(gaps),
        sum(gap.mean > 0 for gap in gaps.values()),
        sum(gap.low > 0 for gap in gaps.values()),
        [f"{kept(r)} {target} ({difference(gap)})" for (r, target), gap in gaps.items() if gap.mean < 0],
        min(gains, key=lambda g: g[1], default=None),
        min(shares, key=lambda s: s[1], default=None),
    )


def sentence(found: Verdict | None, what: str, *, brief: bool = False) -> str:
    """A verdict in words.

    Args:
        found: the verdict; None says nothing.
        what: what was compared.
        brief: without gain and share.
    """
    if found is None:
        return ""
    losses = (
        f"below it in {len(found.losses)}: {', '.join(found.losses)}" if found.losses else "below it nowhere"
    )
    text = (
        f"{what}: ours is above random in {found.above} of {found.cells} cells (ratio × target), in "
        f"{found.clear} of them with the whole interval above 0; {losses}."
    )
    if brief:
        return text
    if found.gain:
        ratio, value, target = found.gain
        text += f" Smallest gain at {kept(ratio)}: {percent(value)} % of random's ({target})."
    if found.share:
        ratio, value, target = found.share
        text += f" Smallest share of all the data's at {kept(ratio)}: {percent(value)} % ({target})."
    return text


#: Names of the overview's columns.
OVERVIEW = (
    "data",
    "regime",
    "seeds",
    "cells",
    "above random",
    "clearly",
    "below",
    "least gain over random",
    "least share of all",
    "cold targets below",
)


def overview_row(part: Part, regime: str) -> tuple[str, ...] | None:
    """A verdict on Recall@20 as cells of the table whose header is `OVERVIEW`."""
    found = verdict(part, regime)
    if found is None:
        return None
    cold = verdict(part, regime, band="cold")
    gain, share = (
        f"{percent(of[1])} % ({of[2]}, {kept(of[0])})" if of else BLANK for of in (found.gain, found.share)
    )
    return (
        part.title,
        regime,
        str(max(found.seeds for key, found in part.found.items() if key.regime == regime)),
        str(found.cells),
        str(found.above),
        str(found.clear),
        str(len(found.losses)),
        gain,
        share,
        f"{len(cold.losses)} of {cold.cells}" if cold else BLANK,
    )

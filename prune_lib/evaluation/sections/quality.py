"""How good the targets are: Recall@20, the other metrics, popularity, other ways to choose."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prune_lib.evaluation.intervals import Interval
from prune_lib.evaluation.sections.part import RECALL, Part
from prune_lib.evaluation.sections.text import (
    BLANK,
    details,
    difference,
    join,
    kept,
    percent,
    share,
    table,
)
from prune_lib.evaluation.sections.verdict import mark, sentence, verdict

__all__ = ["REGIMES", "bands", "baselines", "beyond_accuracy", "other_metrics", "recall"]

#: Regimes in words.
REGIMES = {
    "steps": "the same number of optimisation steps",
    "epochs": "the same number of passes",
    "tuned": "as many steps as suit a random subset of the ratio",
}
# Metric, band, name.
_Measure = tuple[str, str, str]
_METHODS = ("random", "graph", "all")
_NAMES = {"random": "random", "graph": "ours", "all": "all"}


def recall(part: Part, regime: str, picture: str = "") -> str:
    """Verdict, picture and table of Recall@20 in a regime."""
    rows = []
    for ratio, target in part.cells(regime):
        gap = part.over_random(ratio, regime, target)
        mine = part.get("graph", ratio, regime, target)
        assert mine is not None
        of_all = mine.share_of_all
        if math.isnan(of_all.mean):
            full = part.mean("all", 1.0, regime, target)
            of_all = Interval(mine.mean / full if full else math.nan, math.nan, math.nan)
        rows.append(
            [
                kept(ratio),
                target,
                _with_sd(part, "random", ratio, regime, target),
                _with_sd(part, "graph", ratio, regime, target),
                difference(gap),
                mark(gap),
                share(of_all),
                _with_sd(part, "all", ratio, regime, target),
            ]
        )
    header = ["kept", "target", "random", "ours", "ours − random", "", "share of all", "all"]
    cold = verdict(part, regime, band="cold")
    return join(
        [
            sentence(verdict(part, regime), "Recall@20"),
            sentence(cold, "On cold targets", brief=True),
            picture,
            table(header, rows, left=2),
        ]
    )


def _with_sd(part: Part, method: str, ratio: float, regime: str, target: str) -> str:
    """A mean and its standard deviation over seeds."""
    found = part.get(method, ratio, regime, target)
    if found is None:
        return BLANK
    # Counted targets see no seed but in the choice of the subset; of all the data they have no deviation.
    return percent(found.mean) + (f" ± {percent(found.sd)}" if found.sd > 0 else "")


def other_metrics(part: Part) -> str:
    """MRR@20 and NDCG@20."""
    measures = [("mrr@20", "all", "MRR"), ("ndcg@20", "all", "NDCG")]
    words = [
        sentence(verdict(part, regime, metric), f"{name}@20, {regime}", brief=True)
        for regime in part.regimes()
        for metric, _, name in measures
    ]
    return join(["\n".join(f"- {text}" for text in words if text), _triples(part, measures, signed=True)])


def bands(part: Part) -> str:
    """Recall@20 by popularity of the target item."""
    measures = [(RECALL, band, band) for band in ("cold", "mid", "popular")]
    regimes = part.regimes()
    sizes = {
        band: found.cases
        for _, band, _ in measures
        for regime in regimes
        for ratio, target in part.cells(regime, RECALL, band)
        if (found := part.get("graph", ratio, regime, target, band=band)) and not math.isnan(found.cases)
    }
    shown = _triples(part, measures, signed=True)
    if not shown:
        return ""
    intro = "Recall@20 by the popularity of the item to be predicted, in all training sessions: `cold` items "
    intro += "are the tail with a tenth of the occurrences, `popular` ones the head with half of them."
    if sizes:
        intro += " Test cases: " + ", ".join(f"{n:,.0f} {band}" for band, n in sizes.items()) + "."
    return join([intro, shown])


def beyond_accuracy(part: Part) -> str:
    """Coverage, popularity and inequality of what is recommended."""
    measures = [
        ("coverage", "all", "coverage"),
        ("mean_popularity", "all", "popularity"),
        ("gini", "all", "Gini"),
    ]
    shown = _triples(part, measures, signed=False)
    if not shown:
        return ""
    return join(
        [
            "Of the lists of 20, in percent: the share of all items that is in one of them (coverage), the "
            "mean popularity percentile of what is in them (50: drawn evenly from all items), the Gini "
            "coefficient of how often items are.",
            shown,
        ]
    )


def baselines(part: Part) -> str:
    """Recall@20 of every way to choose sessions."""
    blocks = []
    for regime in part.regimes():
        here = {"variant": "", "regime": regime, "metric": RECALL, "band": "all"}
        methods = part.names("method", **here)
        others = [m for m in methods if m not in _METHODS]
        ratios = part.names("ratio", **here, method=tuple(others))
        rows, beaten, compared = [], [], 0
        for ratio in ratios:
            for target in part.names("target", **here, method=tuple(others), ratio=ratio):
                means = {m: part.mean(m, ratio, regime, target) for m in methods}
                rows.append([kept(ratio), target, *(percent(means[m]) for m in methods)])
                mine = means.get("graph", math.nan)
                best = max((m for m in others if means[m] > -1), key=lambda m: means[m], default=None)
                if best is None or math.isnan(mine):
                    continue
                compared += 1
                if means[best] > mine:
                    beaten.append(
                        f"{kept(ratio)} {target} ({best} {percent(means[best])}, ours {percent(mine)})"
                    )
        words = f"No other is above ours in {compared - len(beaten)} of {compared} cells" + (
            f"; one is in {len(beaten)}: {', '.join(beaten)}." if beaten else "."
        )
        header = ["kept", "target", *(_NAMES.get(m, m) for m in methods)]
        shown = table(header, rows, left=2)
        if shown:
            blocks.append(join([f"{_heading(regime)}{words if compared else ''}", shown]))
    return join(blocks)


def _heading(regime: str) -> str:
    return f"*{REGIMES.get(regime, regime).capitalize()}.* "


def _triples(part: Part, measures: Sequence[_Measure], *, signed: bool) -> str:
    """Tables of random, ours and all: means over targets, and folded all the targets.

    Args:
        part: the numbers.
        measures: what the columns show.
        signed: whether more is better, so that a loss is to be marked.
    """
    blocks = []
    for regime in part.regimes():
        cells = dict.fromkeys(c for metric, band, _ in measures for c in part.cells(regime, metric, band))
        columns = [(method, measure) for measure in measures for method in _METHODS]
        values = {
            cell: [
                part.mean(method, cell[0], regime, cell[1], measure[0], band=measure[1])
                for method, measure in columns
            ]
            for cell in sorted(cells, key=lambda c: c[0])
        }
        names = [f"{name} {_NAMES[method]}" for method, (_, _, name) in columns]
        means = []
        for ratio in dict.fromkeys(ratio for ratio, _ in values):
            # Of the same targets in every column, or else columns could not be compared.
            known = [
                i for i in range(len(columns)) if any(not math.isnan(line[i]) for line in values.values())
            ]
            lines = [
                line
                for (r, _), line in values.items()
                if r == ratio and not any(math.isnan(line[i]) for i in known)
            ]
            if lines:
                mean = [sum(line[i] for line in lines) / len(lines) for i in range(len(columns))]
                means.append([kept(ratio), str(len(lines)), *_cells(mean, signed)])
        rows = [[kept(ratio), target, *_cells(line, signed)] for (ratio, target), line in values.items()]
        every = table(["kept", "target", *names], rows, left=2)
        several = len({target for _, target in values}) > 1
        shown = table(["kept", "mean of targets", *names], means, left=1) if several else ""
        if every:
            folded = details("every target", every) if shown else every
            blocks.append(join([_heading(regime).strip(), shown, folded]))
    return join(blocks)


def _cells(line: Sequence[float], signed: bool) -> list[str]:
    """A row of random, ours, all, random, ours, all, …; ours with the mark of a loss."""
    cells = [percent(value) for value in line]
    for i in range(0, len(line), len(_METHODS)):
        if signed and line[i + 1] < line[i]:
            cells[i + 1] = f"▼ {cells[i + 1]}"
    return cells

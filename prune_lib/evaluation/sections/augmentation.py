"""How much augmentation is necessary: all positions in one pass, every prefix a sample, the last only."""

from __future__ import annotations

import math
from collections.abc import Sequence

from prune_lib.evaluation.sections.part import RECALL, SAMPLES, Part
from prune_lib.evaluation.sections.text import (
    compact,
    details,
    join,
    kept,
    percent,
    points,
    seconds,
    table,
)

__all__ = ["augmentation"]

# Method, variant, ratio.
_What = tuple[str, str, float]
_UNIT = "unit="
_WIDTH = 4  # numbers of a kind of samples: Recall, MRR, seconds, targets learned from


def augmentation(part: Part) -> str:
    """Recall@20, MRR@20, seconds and learned targets, by what neural targets learn from."""
    units = [v for v in part.names("variant") if v.startswith(_UNIT)]
    kinds = [s for s in SAMPLES if s in part.names("samples")]
    if len(kinds) < 2 and not units:
        return ""
    blocks = []
    for regime in part.names("regime", samples=tuple(kinds)):
        here = {"regime": regime, "metric": RECALL, "band": "all"}
        several = {
            target
            for target in part.names("target", **here)
            if len(part.names("samples", **here, target=target)) > 1
            or part.names("variant", **here, target=target, variant=tuple(units))
        }
        targets = [t for t in part.names("target", **here) if t in several and t not in part.counted]
        whats = _whats(part, regime, units, kinds)
        lines = {(w, t): _line(part, w, regime, t, kinds) for w in whats for t in targets}
        lines = {k: line for k, line in lines.items() if not all(map(math.isnan, line))}
        names = [f"{kind}: {name}" for kind in kinds for name in ("Recall", "MRR", "s", "learned")]
        means = {w: _mean([line for (v, _), line in lines.items() if v == w]) for w in whats}
        rows = [[_name(w), *_cells(line)] for w, line in means.items() if line]
        every = [[target, _name(w), *_cells(line)] for (w, target), line in lines.items()]
        shown = table(["mean of targets", *names], rows, left=1)
        folded = details("every target", table(["target", "kept", *names], every, left=2))
        if every:
            blocks.append(join([f"*{regime}*. {_words(means, kinds)}".strip(), shown, folded]))
    if not blocks:
        return ""
    intro = (
        "What a neural target learns from: `positions`, all of a session in one pass; `prefixes`, every "
        "prefix as a sample of its own; `last`, the last position only. Recall@20 and MRR@20 in percent; "
        "seconds of a training; targets learned from, repeated passes counted. Means are over targets that have "
        "all columns. A row `unit=prefix` chose prefixes instead of whole sessions."
    )
    return join([intro, *blocks])


def _whats(part: Part, regime: str, units: Sequence[str], kinds: Sequence[str]) -> list[_What]:
    """All the data first, then random and ours side by side at every ratio."""
    found: list[_What] = [("all", "", 1.0)]
    ratios = part.names("ratio", regime=regime, method=("graph", "random"), samples=tuple(kinds))
    for ratio in ratios:
        found += [("random", "", ratio), ("graph", "", ratio), *(("graph", unit, ratio) for unit in units)]
    return found


def _name(what: _What) -> str:
    method, variant, ratio = what
    if method == "all":
        return "all the data"
    return f"{'ours' if method == 'graph' else method} {kept(ratio)}" + (f", {variant}" if variant else "")


def _line(part: Part, what: _What, regime: str, target: str, kinds: Sequence[str]) -> list[float]:
    method, variant, ratio = what
    line = []
    for kind in kinds:
        found = part.get(method, ratio, regime, target, variant=variant, samples=kind)
        mrr = part.mean(method, ratio, regime, target, "mrr@20", variant=variant, samples=kind)
        line += [found.mean, mrr, found.train_seconds, found.learned] if found else [math.nan] * _WIDTH
    return line


def _mean(lines: Sequence[list[float]]) -> list[float]:
    """Mean over targets; of those that have every kind that any of them has."""
    known = [i for i in range(len(lines[0])) if any(not math.isnan(ln[i]) for ln in lines)] if lines else []
    whole = [line for line in lines if not any(math.isnan(line[i]) for i in known)]
    return [sum(column) / len(whole) for column in zip(*whole, strict=True)] if whole else []


def _cells(line: Sequence[float]) -> list[str]:
    writers = (percent, percent, seconds, compact)
    return [writers[i % _WIDTH](value) for i, value in enumerate(line)]


def _words(means: dict[_What, list[float]], kinds: Sequence[str]) -> str:
    """Mean difference of Recall@20 to all positions in one pass."""
    if kinds[0] != "positions":
        return ""
    words = []
    for place, kind in enumerate(kinds[1:], start=1):
        gaps = [line[_WIDTH * place] - line[0] for (_, unit, _), line in means.items() if line and not unit]
        known = [gap for gap in gaps if not math.isnan(gap)]
        if known:
            low, high = points(min(known)), points(max(known))
            words.append(f"{kind} {low if low == high else f'{low} to {high}'}")
    return f"Recall@20 beside all positions in one pass, in points: {', '.join(words)}." if words else ""

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
_NAMES = {"graph": "ours", "random": "random"}
_WIDTH = 4  # numbers of a kind of samples: Recall, MRR, seconds, targets learned from


def augmentation(part: Part) -> str:
    """Recall@20, MRR@20, seconds and learned targets, by what neural targets learn from."""
    units = [v for v in part.names("variant") if v.startswith(_UNIT)]
    there = {*part.names("samples", variant=""), *(["prefixes"] if units else [])}
    kinds = [s for s in SAMPLES if s in there]
    if len(kinds) < 2:
        return ""
    blocks = []
    for regime in part.names("regime"):
        here = {"regime": regime, "metric": RECALL, "band": "all"}
        several = {
            target
            for target in part.names("target", **here)
            if len(part.names("samples", **here, target=target)) > 1
            or part.names("variant", **here, target=target, variant=tuple(units))
        }
        targets = [t for t in part.names("target", **here) if t in several and t not in part.counted]
        whats = _whats(part, regime, units)
        lines = {(w, t): _line(part, w, regime, t, kinds) for w in whats for t in targets}
        lines = {k: line for k, line in lines.items() if not all(map(math.isnan, line))}
        names = [f"{kind}: {name}" for kind in kinds for name in ("Recall", "MRR", "s", "learned")]
        rows = []
        for what in whats:
            whole = _whole([line for (w, _), line in lines.items() if w == what])
            if whole:
                mean = [sum(column) / len(whole) for column in zip(*whole, strict=True)]
                rows.append([_name(what), str(len(whole)), *_cells(mean)])
        every = [[t, _name(w), *_cells(line)] for (w, t), line in lines.items()]
        every.sort(key=lambda row: targets.index(row[0]))
        shown = table(["kept", "mean of targets", *names], rows, left=1)
        folded = details("every target", table(["target", "kept", *names], every, left=2))
        if every:
            blocks.append(join([f"*{regime}*. {_words(lines, kinds)}".strip(), shown, folded]))
    if not blocks:
        return ""
    intro = (
        "What a neural target learns from: `positions`, all of a session in one pass; `prefixes`, every "
        "prefix as a sample of its own; `last`, the last position only. Recall@20 and MRR@20 in percent; "
        "seconds of a training; targets learned from, repeated passes counted. Means are over the "
        "targets that have all columns."
    )
    if units:
        intro += (
            " Rows `unit=prefix` chose prefixes instead of whole sessions, the ratio being that of all "
            "prefixes; each is a sample of its own."
        )
    return join([intro, *blocks])


def _whats(part: Part, regime: str, units: Sequence[str]) -> list[_What]:
    """All the data first, then random and ours side by side at every ratio."""
    methods = ("random", "graph")
    ratios = part.names("ratio", regime=regime, method=methods)
    return [("all", "", 1.0), *((m, v, r) for r in ratios for v in ("", *units) for m in methods)]


def _name(what: _What) -> str:
    method, variant, ratio = what
    if method == "all":
        return "all the data"
    return f"{_NAMES[method]} {kept(ratio)}" + (f", {variant}" if variant else "")


def _line(part: Part, what: _What, regime: str, target: str, kinds: Sequence[str]) -> list[float]:
    method, variant, ratio = what
    # Prefixes that were chosen one by one are trained on by their last positions.
    own = part.names("samples", method=method, variant=variant, regime=regime, target=target)
    line = []
    for kind in kinds:
        samples = kind
        if variant:
            samples = own[0] if own and kind == "prefixes" else "none"
        found = part.get(method, ratio, regime, target, variant=variant, samples=samples)
        mrr = part.mean(method, ratio, regime, target, "mrr@20", variant=variant, samples=samples)
        line += [found.mean, mrr, found.train_seconds, found.learned] if found else [math.nan] * _WIDTH
    return line


def _whole(lines: Sequence[list[float]]) -> list[list[float]]:
    """Of some targets those that have every number that any of them has."""
    known = [i for i in range(len(lines[0])) if any(not math.isnan(ln[i]) for ln in lines)] if lines else []
    return [line for line in lines if not any(math.isnan(line[i]) for i in known)]


def _cells(line: Sequence[float]) -> list[str]:
    writers = (percent, percent, seconds, compact)
    return [writers[i % _WIDTH](value) for i, value in enumerate(line)]


def _words(lines: dict[tuple[_What, str], list[float]], kinds: Sequence[str]) -> str:
    """Differences of Recall@20, each within a target and subset: to all positions, to whole sessions."""
    gaps: dict[str, list[float]] = {}
    for ((method, unit, ratio), target), line in lines.items():
        if kinds[0] == "positions" and not unit:
            for number, kind in enumerate(kinds[1:], start=1):
                gaps.setdefault(f"{kind} instead of positions", []).append(line[_WIDTH * number] - line[0])
        sessions = lines.get(((method, "", ratio), target))
        place = _WIDTH * kinds.index("prefixes") if unit else 0
        if unit and sessions:
            name = f"{unit} instead of the prefixes of whole sessions, {_NAMES[method]}"
            gaps.setdefault(name, []).append(line[place] - sessions[place])
    words = []
    for what, found in gaps.items():
        known = [gap for gap in found if not math.isnan(gap)]
        if known:
            low, mean, high = (points(x) for x in (min(known), sum(known) / len(known), max(known)))
            words.append(f"{what} {mean} on average ({low} to {high})")
    return f"Recall@20 in points: {'; '.join(words)}." if words else ""

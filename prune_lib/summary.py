"""What a run says at its end: what was asked and kept, why, how long it took, where it is, what is next."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prune_lib.launcher import job_script, launcher
from prune_lib.locations import COMPANIONS, companion, sql_name
from prune_lib.moments import with_zone
from prune_lib.schemas import GONE, KEPT_REASONS, PRUNED_REASONS
from prune_lib.stages import Stages
from prune_lib.wording import allowed, bar, percent, shown

__all__ = ["WHY", "Summary", "described", "tables_of", "used_of"]

_WIDTH = 100
_MARGIN = 17
# Of a column of numbers, at least.
_NARROW = 7

#: Reasons in a few words; `schemas.REASONS` says them in full.
WHY = {
    "COLD_ITEM": "teaches rare items",
    "NEW_PATTERN": "holds patterns that no kept session held",
    "REPRESENTATIVE": "adds evidence of common patterns",
    "FLOOR": "needed for a minimum",
    "METHOD": "chosen by the baseline's rule",
    "DUPLICATE": "its sequence is kept in another session",
    "COVERED": "kept sessions say most of it already",
    "BOT": "too long, or on too few items, for a person",
    "NOISE": "among the hardest, and like no other session",
    "BUDGET": "next in line when the budget ended",
}
# A stage that took less is one of "others": a run has a dozen, and a few of them are the time.
_SHORT = 0.05
_TABLES = {
    "pruned": "kept rows, ranked",
    "decisions": "every session: kept or not, and why",
    "items": "every item before and after",
    "runs": "every run: settings, counts, seconds",
}
_WEIGHED_BY = {
    "forecast": "the sessions expected to hold an item or transition next",
    "recency": "recency-weighted counts of items and transitions",
    "count": "counts of items and transitions, as the input has no order",
}
# Fields of the runs table's structs, which a run that has just ended still has as tuples.
_FIELDS = {
    "stages": ("name", "seconds", "rows"),
    "rounds": (
        "phase",
        "round",
        "threshold",
        "candidates",
        "picked",
        "interactions",
        "seconds",
        "edges",
        "shuffle_bytes",
    ),
    "bot_limits": ("clicks", "repeats"),
    "churn": ("former_run", "kept_before", "stayed", "left", "left_because", "came", "came_new"),
}


@dataclass(frozen=True, repr=False)
class Summary:
    """The result of a run.

    Attributes:
        text: what is printed.
        run: the run's row of the runs table; empty after a dry run.
        scoring: how sessions were scored, see `difficulty.ScoringInfo`; empty where they were not.
        output: the pruned table; empty after a dry run.
        plan: what a dry run found; empty after a run.
        report: where the run's report is; None where none was written.
    """

    text: str
    run: Mapping[str, Any] = field(default_factory=dict)
    scoring: Mapping[str, Any] = field(default_factory=dict)
    output: str = ""
    plan: Mapping[str, Any] = field(default_factory=dict)
    report: str | None = None

    def __str__(self) -> str:
        """The text for people."""
        return self.text

    def __repr__(self) -> str:
        """The text, too: in a notebook or at a prompt the summary is for people."""
        return self.text

    def record(self) -> dict[str, Any]:
        """What --json says: the run's row, the tables, the warnings; of a dry run the plan."""
        if not self.run:
            return {"dry_run": True, "plan": dict(self.plan)}
        return {
            "dry_run": False,
            "run": described(self.run),
            "tables": tables_of(self.output),
            "report": self.report,
            "scoring": dict(self.scoring),
            "warnings": list(self.run["warnings"] or []),
        }

    @classmethod
    def of(
        cls,
        run: Mapping[str, Any],
        output: str,
        stages: Stages | None = None,
        scoring: Mapping[str, Any] | None = None,
        report: str | None = None,
    ) -> Summary:
        """Put a run into words.

        Args:
            run: its row of the runs table.
            output: the pruned table.
            stages: with the time of writing, which the row cannot hold; the row's own where absent.
            scoring: how sessions were scored.
            report: where the run's report is; None where there is none.
        """
        spent = [(s.name, s.seconds) for s in stages.done] if stages else []
        spent = spent or [(s["name"], s["seconds"]) for s in described(run)["stages"]]
        # Columns as narrow as the numbers in them are.
        width = max(_NARROW, len(f"{run['interactions_before']:,}"))
        lines = [
            *_head(run),
            "",
            *_counts(run, width),
            *_quality(run, scoring or {}),
            *_churn(run),
            *_reasons(run["reasons"], "kept because", KEPT_REASONS, width),
            *_reasons(run["reasons"], "pruned because", PRUNED_REASONS, width),
            *_warnings(run["warnings"] or []),
            *_seconds(spent, width),
            *_places(output, report),
            *_next(output, run),
        ]
        return cls("\n".join(lines), run, scoring or {}, output, report=report)


def described(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run's row with names for what is in it: settings, stages and rounds as mappings; times in UTC."""
    out = with_zone(run)
    if isinstance(run.get("settings"), str):
        out["settings"] = json.loads(run["settings"])
    for key in ("stages", "rounds"):
        out[key] = [_named(key, value) for value in run.get(key) or []]
    for key in ("bot_limits", "churn"):
        if run.get(key) is not None:
            out[key] = _named(key, run[key])
    return out


def _named(key: str, value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else dict(zip(_FIELDS[key], value, strict=True))


def tables_of(output: str) -> dict[str, str]:
    """The four tables of a run, by kind."""
    return {"pruned": output, **{kind: companion(output, kind) for kind in COMPANIONS}}


def used_of(run: Mapping[str, Any]) -> tuple[int, int, int]:
    """In what the ratio counts: what was kept, the budget, all there was."""
    what = "interactions" if run["budget"] == "interactions" else "sessions"
    before = int(run[f"{what}_before"])
    return int(run[f"{what}_after"]), allowed(run["ratio"], before), before


def _units(run: Mapping[str, Any]) -> str:
    return "samples" if run.get("unit") == "prefix" else "sessions"


def window_of(run: Mapping[str, Any]) -> str:
    """From when on a run took sessions, to be put after its input; empty where it took all."""
    begins = run.get("since")  # an older version's record has none
    return f", sessions since {begins:%Y-%m-%d %H:%M:%S} UTC" if begins else ""


def _head(run: Mapping[str, Any]) -> Iterator[str]:
    used, budget, _ = used_of(run)
    version = "" if run["input_version"] is None else f", version {run['input_version']}"
    yield f"Pruned {shown(run['input'])}{version}{window_of(run)}"
    yield _line("asked", f"{100 * run['ratio']:g} % of the {run['budget']}: a budget of {budget:,}")
    yield _line("used", f"{used:,}, {percent(used, budget).strip()} of the budget")
    yield _line("run", f"{run['run_id']}, method {run['method']}, seed {run['seed']}")


def _counts(run: Mapping[str, Any], width: int) -> Iterator[str]:
    samples = _units(run) == "samples"
    parts = (
        ("sessions", _units(run), "kept"),
        ("interactions", "" if samples else "interactions", "kept"),
        ("items", "targets" if samples else "items", "covered"),
    )
    for what, name, word in parts:
        if name:
            yield _count(name, run[f"{what}_after"], run[f"{what}_before"], word, width)
    doubled = run["duplicates_before"]
    if doubled is not None:
        yield _count("duplicates", doubled - run["duplicates_after"], doubled, "removed", width)


def _quality(run: Mapping[str, Any], scoring: Mapping[str, Any]) -> Iterator[str]:
    if run["gini_before"] is not None:
        yield _line(
            "popularity", f"Gini {run['gini_before']:.3f} before, {run['gini_after']:.3f} after (0 is even)"
        )
    if run.get("demand") and run["method"] == "graph":
        yield _line("weighed by", _WEIGHED_BY[run["demand"]])
    if scoring:
        before = scoring["reused_sessions"]
        yield _line(
            "difficulty",
            f"{scoring['score']} by experts {scoring['experts']}, mean loss {scoring['mean_loss']:.3f} nats",
        )
        if before:
            yield _line("", f"{before:,} sessions were scored before")


def _churn(run: Mapping[str, Any]) -> Iterator[str]:
    churn = described(run).get("churn")
    if churn is None:
        return
    stayed, before = churn["stayed"], churn["kept_before"]
    units = _units(run)
    yield _line(
        "since before",
        f"{stayed:,} of {before:,} {units} that {churn['former_run']} kept are kept "
        f"({percent(stayed, before).strip()})",
    )
    why = sorted(churn["left_because"].items(), key=lambda pair: (-pair[1], pair[0]))
    gone = f"no longer in the input{' or its window' if run.get('since') else ''}"
    parts = [f"{n:,} {gone if reason == GONE else reason}" for reason, n in why]
    left = f"{churn['left']:,} left{': ' if parts else ''}{', '.join(parts)}"
    text = f"{left}; {churn['came']:,} came, {churn['came_new']:,} of them new in the input"
    yield from (_line("", part) for part in textwrap.wrap(text, _WIDTH - 2 - _MARGIN))


def _count(name: str, part: int, whole: int, word: str, width: int) -> str:
    return _line(name, f"{part:>{width},} {percent(part, whole)}  of {whole:>{width},} {word}")


def _reasons(counts: Mapping[str, int], head: str, names: Mapping[str, str], width: int) -> Iterator[str]:
    there = {name: counts[name] for name in names if counts.get(name)}
    total = sum(there.values())
    if there:
        yield from ("", f"  {head}")
    for name, count in there.items():
        share = f"{count:>{width},} {percent(count, total)}  {bar(count / total):<12}"
        yield f"    {name:<15}{share}  {WHY[name]}"


def _warnings(warnings: Sequence[str]) -> Iterator[str]:
    if warnings:
        yield from ("", "  warnings" if len(warnings) > 1 else "  warning")
    for text in warnings:
        yield from textwrap.wrap(
            shown(text), _WIDTH, initial_indent="    ", subsequent_indent="      ", break_long_words=False
        )


def _seconds(spent: Sequence[tuple[str, float]], width: int) -> Iterator[str]:
    total = sum(seconds for _, seconds in spent)
    long = [(name, seconds) for name, seconds in spent if seconds >= _SHORT * total]
    short = [seconds for name, seconds in spent if seconds < _SHORT * total]
    if len(short) == 1:
        long, short = list(spent), []
    rest = [(f"{len(short)} others", sum(short))] if short else []
    yield from ("", _line("seconds", f"{total:>{width},.1f}"))
    for name, seconds in [*long, *rest]:
        share = seconds / total if total else 0.0
        yield f"    {name:<15}{seconds:>{width},.1f} {percent(seconds, total)}  {bar(share)}".rstrip()


def _places(output: str, report: str | None) -> Iterator[str]:
    yield from ("", "  tables")
    places = tables_of(output)
    width = max(len(shown(place)) for place in places.values())
    for kind, place in places.items():
        # What it holds is said only where the line stays short: a long path is told by its ending.
        about = f"   {_TABLES[kind]}" if 4 + _MARGIN + width + 40 <= _WIDTH else ""
        yield f"    {kind:<15}{shown(place):<{width}}{about}".rstrip()
    if report:
        yield from ("", _line("report", shown(report)))


def _next(output: str, run: Mapping[str, Any]) -> Iterator[str]:
    units = _units(run)
    yield from ("", "Look at it, in spark-sql or a notebook:", "")
    yield f"  SELECT reason, kept, count(*) AS {units}, round(avg(difficulty), 3) AS difficulty"
    yield f"  FROM {sql_name(companion(output, 'decisions'))}"
    yield f"  GROUP BY reason, kept ORDER BY kept DESC, {units} DESC;"
    yield from ("", "Why one session was kept or not, or what became of an item (--item ID):", "")
    yield f"  {launcher()} {job_script('explain')} --output {shlex.quote(output)} --session ID"


def _line(head: str, text: str) -> str:
    return f"  {head:<{_MARGIN}}{text}"

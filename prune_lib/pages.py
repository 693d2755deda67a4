"""A readable page on one decision: why a session was kept or pruned, what became of an item.

    print(explain("4711", output="clicks_pruned"))

All numbers are those of the tables that the run wrote. A session's gain is the sum of its parts; with its
propagated difficulty and its cost it makes the key by which it was chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prune_lib.locations import COMPANIONS
from prune_lib.lookup import (
    ItemFacts,
    SamplesFacts,
    SessionFacts,
    Tables,
    Versions,
    item_facts,
    session_facts,
)
from prune_lib.pinned import belonging
from prune_lib.schemas import REASONS
from prune_lib.session import check_runtime, get_spark, in_utc
from prune_lib.settings.explain import ExplainSettings
from prune_lib.settings.keywords import as_arguments
from prune_lib.settings.sources import of_call
from prune_lib.summary import window_of
from prune_lib.wording import shown

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = [
    "Explanation",
    "explain",
    "explain_settings",
    "item_page",
    "key_of",
    "samples_page",
    "session_page",
]

_EXPERTS = ("gnn", "rnn", "transformer")
_MARGIN = 14


@dataclass(frozen=True, repr=False)
class Explanation:
    """What is known of a session, an item, or both.

    Attributes:
        text: for people.
        session: facts of the session, of one of its samples or of all; None where none was asked for.
        item: facts of the item; None where none was asked for.
    """

    text: str
    session: SessionFacts | SamplesFacts | None = None
    item: ItemFacts | None = None

    def __str__(self) -> str:
        """The text."""
        return self.text

    def __repr__(self) -> str:
        """The text, too: in a notebook or at a prompt the page is for people."""
        return self.text

    def record(self) -> dict[str, Any]:
        """What --json says: the facts, as the tables have them."""
        return {"session": self.session, "item": self.item, "text": self.text}


def explain(
    session: str | int | None = None,
    *,
    length: int | None = None,
    item: str | int | None = None,
    output: str | None = None,
    workspace: str = "./workspace",
    lines: int = 20,
    spark: SparkSession | None = None,
) -> Explanation:
    """Say why a session was kept or pruned, or what became of an item.

    Args:
        session: id of a session of the input.
        length: clicks of one of its samples, where samples were chosen.
        item: id of an item.
        output: the pruned table; by default the workspace's `pruned`.
        workspace: where it lies by default.
        lines: lines of a list, at most.
        spark: the session to use; None takes the running one or builds one.

    Returns:
        A page, printable, with the facts in it.

    Raises:
        UserError: nothing was asked for, or there is no such table, session or item.
    """
    asked = {
        "session": session,
        "length": length,
        "item": item,
        "output": output,
        "workspace": workspace,
        "lines": lines,
    }
    with as_arguments(ExplainSettings):
        return explain_settings(of_call(ExplainSettings, asked), spark)


def explain_settings(
    settings: ExplainSettings, spark: SparkSession | None = None, versions: Versions | None = None
) -> Explanation:
    """`explain` by settings, from the tables' versions that belong together or from those given.

    Cost: a few filters over the run's tables and its input; nothing is computed again.
    """
    spark = spark or get_spark("explain")
    check_runtime(spark, only_reads=True)
    with in_utc(spark):
        return _explained(settings, spark, versions)


def _explained(settings: ExplainSettings, spark: SparkSession, versions: Versions | None) -> Explanation:
    output = settings.resolved_output
    versions = belonging(spark, output) if versions is None else versions
    if settings.dry_run:
        tables = Tables(spark, output, versions)
        for kind in COMPANIONS:
            tables.companion(kind)
        return Explanation(f"Dry run: the decisions of {output} are there, and would be read; no row was.")
    of_session = (
        session_facts(spark, output, settings.session, settings.length, versions)
        if settings.session
        else None
    )
    of_item = item_facts(spark, output, settings.item, settings.lines, versions) if settings.item else None
    pages = []
    if isinstance(of_session, SamplesFacts):
        pages.append(samples_page(of_session))
    elif of_session:
        pages.append(session_page(of_session, settings.lines))
    pages += [item_page(of_item)] if of_item else []
    return Explanation("\n\n".join(pages), of_session, of_item)


def session_page(facts: SessionFacts, lines: int = 20) -> str:
    """The page of a session, or of a sample.

    Args:
        facts: what the tables say.
        lines: parts of its gain that are shown.
    """
    of, run = facts.decision, facts.run
    rank = f": rank {of['rank']:,} of {run['sessions_after']:,}" if of["kept"] else ""
    out = [
        f"S{_named(of, 'session_id', 'length')[1:]} was {'kept' if of['kept'] else 'pruned'}{rank}.",
        f"{of['reason']}: {_reason(of['reason'])}.",
        "",
        _line("clicks", _clicks(facts)),
    ]
    limits = run.get("bot_limits")
    if of["reason"] == "BOT" and limits is not None:
        out.append(
            _line("limits", f"{limits['clicks']:,.0f} clicks, or {limits['repeats']:,.1f} clicks an item")
        )
    out += _difficulty(of, _units(run))
    if of["kept"] and facts.weight is not None:
        out.append(_line("stands for", f"{facts.weight:,.1f} of {run['sessions_before']:,} {_units(run)}"))
    if of.get("covered_by") is not None:
        same = of["reason"] == "DUPLICATE"
        shared = ", ".join(shown(item) for item in of["shared_items"] or [])
        out.append(
            _line("covered by", _named(of, "covered_by", "covered_by_length"))
            + (", the same sequence" if same else f", which shares {shared or 'no item'}")
        )
    out += _gain(facts, lines)
    return "\n".join([*out, "", _source(run)])


def samples_page(facts: SamplesFacts) -> str:
    """The samples of a session, a line each."""
    first = facts.decisions[0]
    kept = sum(of["kept"] for of in facts.decisions)
    out = [
        f"Session {shown(first['session_id'])} has {len(facts.decisions):,} samples, of which {kept:,} were "
        "kept (--length N explains one).",
        "",
    ]
    for of in facts.decisions:
        rank = f", rank {of['rank']:,}" if of["kept"] else ""
        what = f"→ {shown(of['target'])}  {'kept' if of['kept'] else 'pruned'}{rank}: {of['reason']}"
        out.append(_line(f"length {of['length']:,}", what))
    return "\n".join([*out, "", _source(facts.run)])


def item_page(facts: ItemFacts) -> str:
    """The page of an item."""
    of, units = facts.item, _units(facts.run)
    of_samples = units == "samples"
    clicks = "predict it" if of_samples else f"hold it, in {of['interactions_before']:,} clicks"
    share = f" ({100 * of['share_kept']:.1f} %)" if of["share_kept"] is not None else ""
    kept = "" if of_samples else f", {of['interactions_after']:,} of these clicks"
    out = [
        f"Item {shown(of['item'])} is {of['band']}: {of['sessions_before']:,} {units} of the input {clicks}.",
        "",
        _line("kept", f"{of['sessions_after']:,} of these {units}{share}{kept}"),
    ]
    if of["mean_difficulty"] is not None:
        out.append(_line("difficulty", f"{of['mean_difficulty']:.2f}, mean rank of its {units}, 1 = hardest"))
    by_reason = sorted((facts.reasons or {}).items(), key=lambda entry: (-entry[1], entry[0]))
    for n, (name, sessions) in enumerate(by_reason):
        out.append(_line("why" if n == 0 else "", f"{sessions:>8,}  {name}: {_reason(name)}"))
    for n, row in enumerate(facts.kept):
        head = f"kept {units}" if n == 0 else ""
        clicks = f", {row['prune_length']:,} clicks" if "prune_length" in row else ""
        out.append(
            _line(
                head,
                f"rank {row['prune_rank']:,}  {shown(row['session_id'])}{clicks}  {row['prune_reason']}, "
                f"stands for {row['prune_weight']:,.1f}",
            )
        )
    left = of["sessions_after"] - len(facts.kept)
    if left > 0:
        out.append(_line("", f"and {left:,} more"))
    return "\n".join([*out, "", _source(facts.run)])


def key_of(facts: SessionFacts) -> float | None:
    """The key by which a session was chosen: exp(-kappa x propagated) x gain / cost; None where it was not.

    A floor chose by something else, and what is left when coverage ends comes in line by the keys of that
    moment, not by what it added. A pruned session's is the one that it had at the end.
    """
    of, settings = facts.decision, facts.settings
    if of["gain"] is None or of["reason"] == "FLOOR" or (of["kept"] and of["rank"] > _chosen(facts.run)):
        return None
    x = 0.5 if of["propagated"] is None else float(of["propagated"])
    by_clicks = settings["budget"] == "interactions" and settings.get("unit") != "prefix"
    cost = of["interactions"] if by_clicks else 1
    return math.exp(-settings["sampling"]["kappa"] * x) * float(of["gain"]) / cost


def _chosen(run: Mapping[str, Any]) -> float:
    """The last rank that the sampler's rounds gave; what has a larger one was put in line behind them."""
    rounds = run.get("rounds")
    return math.inf if rounds is None else sum(r["picked"] for r in rounds)


def _gain(facts: SessionFacts, lines: int) -> Iterator[str]:
    """What its gain is made of."""
    of = facts.decision
    gain, parts = of["gain"], of.get("gain_parts")
    if gain is None:
        how = "for a floor" if of["reason"] == "FLOOR" else "by the rule of a baseline"
        yield _line("gain", f"not known: it was chosen {how}, not for what it adds")
        return
    what = "added when it was chosen" if of["kept"] else "could still add at the end"
    yield _line("gain", f"{gain:.3g} {what}" + (", made of" if parts else ""))
    key, settings = key_of(facts), facts.settings
    # Older tables have gains of twelve decimals, whose smallest are 0.
    whole = sum(part["gain"] for part in parts or [])
    for part in (parts or [])[:lines]:
        yield _line("", f"{100 * part['gain'] / whole:5.1f} %  {_pattern(part)}")
    rest = (parts or [])[lines:]
    if rest:
        share = 100 * sum(part["gain"] for part in rest) / whole
        yield _line("", f"{share:5.1f} %  {len(rest):,} more patterns")
    if parts is None:
        yield _line("", "its parts are not in this table, which an older version wrote")
    if key is not None and facts.run["method"] == "graph":
        cost = "1 sample" if _units(facts.run) == "samples" else f"{of['interactions']:,} clicks"
        per = cost if settings["budget"] == "interactions" else "1 session"
        x = 0.5 if of["propagated"] is None else of["propagated"]
        kappa = settings["sampling"]["kappa"]
        yield _line("key", f"{key:.3g} = gain × exp(−{kappa:g} × {x:.2f}) / {per}: largest first")


def _difficulty(of: Mapping[str, Any], units: str) -> Iterator[str]:
    if of["difficulty"] is None:
        yield _line("difficulty", "none: there is nothing in it to predict, or nobody was asked")
        return
    loss = f", loss {of['raw_difficulty']:.2f} nats" if of["raw_difficulty"] is not None else ""
    yield _line("difficulty", f"{of['difficulty']:.2f}, its rank among all {units}, 1 = hardest{loss}")
    experts = [
        f"{name} {of[f'difficulty_{name}']:.2f} (weight {of[f'gate_{name}']:.2f})"
        for name in _EXPERTS
        if of[f"difficulty_{name}"] is not None and of[f"gate_{name}"] is not None
    ]
    if experts:
        yield _line("experts", ", ".join(experts) + " nats")
    if of["propagated"] is not None:
        change = of["propagated"] - of["difficulty"]
        word = "harder" if change > 0 else "easier"
        yield _line(
            "neighbours",
            f"{of['propagated']:.2f} after propagation: {units} that share its patterns are {word} "
            f"({change:+.2f})"
            if abs(change) >= 0.005
            else f"{of['propagated']:.2f} after propagation: its neighbours are as hard as it is",
        )


def _clicks(facts: SessionFacts) -> str:
    count = f"{facts.decision['interactions']:,}"
    if facts.clicks is None:
        return f"{count}; the input of the run cannot be read any more as it was"
    first = [shown(item) for item in facts.clicks[:50]]
    more = len(facts.clicks) - len(first)
    return f"{count}: " + " → ".join([*first, *([f"{more:,} more"] if more else [])])


def _pattern(part: Mapping[str, Any]) -> str:
    if part["next_item"] is None:
        return f"item {shown(part['item'])}"
    return f"{shown(part['item'])} → {shown(part['next_item'])}"


def _reason(name: str) -> str:
    """The meaning, without the word that the page has said already."""
    return REASONS.get(name, "").split(": ", 1)[-1]


def _source(run: Mapping[str, Any]) -> str:
    version = "" if run["input_version"] is None else f", version {run['input_version']}"
    return (
        f"Run {run['run_id']}: {run['method']}, {100 * run['ratio']:g} % of the {run['budget']} of "
        f"{run['input']}{version}{window_of(run)}."
    )


def _units(run: Mapping[str, Any]) -> str:
    """What a run chose, in the plural; an older version's record does not say it."""
    return "samples" if run.get("unit") == "prefix" else "sessions"


def _named(of: Mapping[str, Any], session: str, length: str) -> str:
    """A session by its id, or a sample of it."""
    upto = f" up to click {of[length]:,}" if of.get(length) is not None else ""
    return f"session {shown(of[session])}{upto}"


def _line(head: str, text: str) -> str:
    return f"  {head:<{_MARGIN}}{text}".rstrip()

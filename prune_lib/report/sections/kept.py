"""What was kept, why, and what less would have kept."""

from __future__ import annotations

import pandas as pd

from prune_lib.locations import sql_name
from prune_lib.report.charts.budget import coverage
from prune_lib.report.charts.flow import flow
from prune_lib.report.facts import BANDS, Facts
from prune_lib.report.parts import Column, Figure, Number, Section, Table, count, percent
from prune_lib.report.sections.words import MEANS, as_designed, decimal, units
from prune_lib.schemas import REASONS
from prune_lib.summary import window_of

__all__ = ["budgets", "reasons", "what_was_kept"]

# Baselines whose order depends on the ratio; the ranks of all other methods nest.
_BY_RATIO = ("dual",)


def what_was_kept(facts: Facts) -> Section:
    """The first screen: what was asked, what was kept."""
    run, unit = facts.run, units(facts)
    asked = f"{100 * run['ratio']:g} % of the {run['budget']}"
    kept, before = run["sessions_after"], run["sessions_before"]
    clicks, clicks_before = run["interactions_after"], run["interactions_before"]
    ours = "the graph method (ours)" if run["method"] == "graph" else f"the baseline {run['method']}"
    lead = [
        f"Asked for {asked} of {run['input']}{window_of(run)}, {ours} kept {count(kept)} of {count(before)} "
        f"{unit}. "
        f"They hold {percent(run['items_after'], run['items_before'])} of the items"
        + (
            f" and {count(run['duplicates_after'])} of the {count(run['duplicates_before'])} duplicates."
            if run["duplicates_before"]
            else "; the input has no duplicates."
        ),
    ]
    numbers = [
        Number(
            f"{unit} kept",
            count(kept),
            MEANS["sessions_after"],
            f"of {count(before)}, {percent(kept, before)}",
        ),
        Number(
            "interactions kept",
            count(clicks),
            MEANS["interactions_after"] + ": what storage and training cost",
            f"of {count(clicks_before)}, {percent(clicks, clicks_before)}",
        ),
        Number(
            "items covered",
            count(run["items_after"]),
            MEANS["items_after"] + "; the others can no longer be recommended",
            f"of {count(run['items_before'])}, {percent(run['items_after'], run['items_before'])}",
        ),
        Number(
            "duplicates removed",
            count(run["duplicates_before"] - run["duplicates_after"]),
            f"Copies of the input, all {unit} of a sequence of items but one, less those among the kept. "
            "The reason DUPLICATE is for those whose sequence is kept elsewhere",
            f"of {count(run['duplicates_before'])}",
        ),
        Number(
            "evenness of popularity",
            f"{run['gini_after']:.3f}",
            MEANS["gini_after"],
            f"Gini, before {run['gini_before']:.3f}",
        ),
        Number(
            "error of weighted counts",
            percent(run["weight_error"]),
            MEANS["weight_error"],
            "of sessions by item",
        ),
    ]
    warnings = [f"Warning: {text}" for text in run["warnings"] or []]
    return Section("kept", "Kept", "What was kept", [*lead, *warnings], numbers)


def reasons(facts: Facts) -> Section:
    """Why: the flow from all sessions to the reasons."""
    unit, total = units(facts), int(facts.run["sessions_before"])
    table = Table(
        "Reasons",
        [
            Column("reason", numeric=False),
            Column("what it means", numeric=False),
            Column(unit, f"Number of {unit} with this reason"),
            Column("share", f"Of all {unit} of the input"),
            Column("interactions", f"Clicks of these {unit}"),
            Column("mean difficulty", "Mean percentile rank of the difficulty, from 0 to 1, higher = harder"),
        ],
        [
            (
                row["reason"],
                REASONS.get(row["reason"], ""),
                count(row["sessions"]),
                percent(row["sessions"], total),
                count(row["interactions"]),
                decimal(row["difficulty"]),
            )
            for row in facts.reasons.to_dict("records")
        ],
    )
    figure = Figure(
        "flow",
        f"Where the {unit} went",
        f"The height of a band is the share of all {unit}. Upper bands were kept.",
        flow(facts.reasons, unit),
        wide=True,
    )
    return Section(
        "why",
        "Why",
        f"Why {unit} were kept or pruned",
        [f"Every one of the {unit} has one reason, in the column reason of the decisions."],
        figures=[figure],
        tables=[table],
    )


def budgets(facts: Facts) -> Section:
    """What a smaller budget would have kept: where the ranks nest, no other run is needed."""
    run, unit, curve = facts.run, units(facts), facts.curve
    covered = {band: int((facts.items["band"] == band).sum()) for band in BANDS}
    numbers = [
        Number("rank up to", "", "Largest prune_rank of the smaller selection", id="what-if-rank"),
        Number(unit, "", f"{unit.capitalize()} up to that rank", id="what-if-sessions"),
        Number("interactions", "", "Their clicks", id="what-if-interactions"),
        Number("items covered", "", "Items that they hold", id="what-if-items"),
        Number("cold items covered", "", "Items of the band cold that they hold", id="what-if-cold"),
        Number("objective", "", MEANS["objective"], id="what-if-objective"),
    ]
    # Floors come before everything else, and may be those of cold items.
    late = as_designed(facts) and not (facts.settings.get("floor") or facts.settings.get("floor_by"))
    chart = coverage(curve, facts.items, int(run["interactions_before"]))
    figure = Figure(
        "coverage",
        "Coverage against the budget",
        ("Cold items come late: what most sessions ask for is covered first. " if late else "")
        + "The line follows the slider.",
        chart,
        wide=True,
    )
    nested = (
        "The first k of this run, by rank. A run with a smaller budget would keep others: dual prefers the "
        "easier ones, the less is kept."
        if run["method"] in _BY_RATIO
        else "The ranks nest: the first k of this run are what a run with a smaller budget keeps."
    )
    # What floors took, less what was taken back of it.
    of_floors = sum(r["picked"] for r in run.get("rounds") or [] if r["phase"] in ("floor", "redundant"))
    floors = (
        f" Floors come first: below rank {count(of_floors)} some are not met, and a run with so small a "
        "budget would be refused."
        if of_floors
        else ""
    )
    points = {name: _plain(curve[name]) for name in curve.columns}
    return Section(
        "what-if",
        "What if",
        "What if I kept less?",
        [
            f"{nested}{floors} This run ends at "
            f"{percent(run['interactions_after'], run['interactions_before'])} of the interactions; for "
            "more, prune again with a larger --ratio."
        ],
        numbers,
        [figure],
        kind="slider",
        data={
            "curve": points,
            "sessions": int(run["sessions_before"]),
            "interactions": int(run["interactions_before"]),
            "items": int(run["items_before"]),
            "cold": covered["cold"],
            "sql": f"SELECT * FROM {sql_name(facts.output)}{facts.as_of('pruned')} WHERE prune_rank <= ",
        },
    )


def _plain(values: pd.Series) -> list[float | int | None]:
    """Numbers for JSON, which knows no NaN."""
    return [None if v != v else (int(v) if float(v).is_integer() else round(float(v), 5)) for v in values]

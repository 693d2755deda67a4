"""The report's sections: what was kept, why, and how one can tell; in the order of a reader's questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from prune_lib.experts.settings import EXPERTS
from prune_lib.locations import sql_name
from prune_lib.report.charts.budget import coverage
from prune_lib.report.charts.experts import by_popularity, kept_by_difficulty, loss_densities, loss_kept
from prune_lib.report.charts.flow import flow
from prune_lib.report.charts.items import kept_by_popularity, long_tail, popularity_groups
from prune_lib.report.charts.parts import LABELS
from prune_lib.report.charts.results import performance
from prune_lib.report.charts.run import by_length, seconds_by_stage
from prune_lib.report.charts.sessions import neighbourhood
from prune_lib.report.facts import BANDS, MIXTURE, Facts
from prune_lib.report.neighbours import Neighbourhood
from prune_lib.report.parts import Column, Figure, Number, Section, Table, count, percent
from prune_lib.report.results import Measured
from prune_lib.schemas import REASONS, RUNS

__all__ = [
    "around",
    "budgets",
    "difficulty",
    "examples_of",
    "items",
    "map_of",
    "performances",
    "reasons",
    "the_run",
    "what_was_kept",
]

_MEANS = {column.name: column.comment for column in RUNS}
_CLICKS_SHOWN = 12


def _units(facts: Facts) -> str:
    return "samples" if facts.samples else "sessions"


def what_was_kept(facts: Facts) -> Section:
    """The first screen: what was asked, what was kept."""
    run, units = facts.run, _units(facts)
    asked = f"{100 * run['ratio']:g} % of the {run['budget']}"
    kept, before = run["sessions_after"], run["sessions_before"]
    clicks, clicks_before = run["interactions_after"], run["interactions_before"]
    ours = "the graph method (ours)" if run["method"] == "graph" else f"the baseline {run['method']}"
    lead = [
        f"Asked for {asked} of {run['input']}, {ours} kept {count(kept)} of {count(before)} {units}. "
        f"They hold {percent(run['items_after'], run['items_before'])} of the items"
        + (
            f" and {count(run['duplicates_after'])} of the {count(run['duplicates_before'])} duplicates."
            if run["duplicates_before"]
            else "; the input has no duplicates."
        ),
    ]
    numbers = [
        Number(
            f"{units} kept",
            count(kept),
            _MEANS["sessions_after"],
            f"of {count(before)}, {percent(kept, before)}",
        ),
        Number(
            "interactions kept",
            count(clicks),
            _MEANS["interactions_after"] + ": what storage and training cost",
            f"of {count(clicks_before)}, {percent(clicks, clicks_before)}",
        ),
        Number(
            "items covered",
            count(run["items_after"]),
            _MEANS["items_after"] + "; the others can no longer be recommended",
            f"of {count(run['items_before'])}, {percent(run['items_after'], run['items_before'])}",
        ),
        Number(
            "duplicates removed",
            count(run["duplicates_before"] - run["duplicates_after"]),
            "Sessions whose sequence of items an earlier session has, and that were not kept; those whose "
            "sequence is kept elsewhere have the reason DUPLICATE",
            f"of {count(run['duplicates_before'])}",
        ),
        Number(
            "evenness of popularity",
            f"{run['gini_after']:.3f}",
            _MEANS["gini_after"],
            f"Gini, before {run['gini_before']:.3f}",
        ),
        Number(
            "error of weighted counts",
            percent(run["weight_error"]),
            _MEANS["weight_error"],
            "of sessions by item",
        ),
    ]
    warnings = [f"Warning: {text}" for text in run["warnings"] or []]
    return Section("kept", "Kept", "What was kept", [*lead, *warnings], numbers)


def reasons(facts: Facts) -> Section:
    """Why: the flow from all sessions to the reasons."""
    units, total = _units(facts), int(facts.run["sessions_before"])
    table = Table(
        "Reasons",
        [
            Column("reason", numeric=False),
            Column("what it means", numeric=False),
            Column(units, f"Number of {units} with this reason"),
            Column("share", f"Of all {units} of the input"),
            Column("interactions", f"Clicks of these {units}"),
            Column("mean difficulty", "Mean percentile rank of the difficulty, from 0 to 1, higher = harder"),
        ],
        [
            (
                row["reason"],
                REASONS.get(row["reason"], ""),
                count(row["sessions"]),
                percent(row["sessions"], total),
                count(row["interactions"]),
                _decimal(row["difficulty"]),
            )
            for row in facts.reasons.to_dict("records")
        ],
    )
    figure = Figure(
        "flow",
        f"Where the {units} went",
        f"The height of a band is the share of all {units}. Upper bands were kept.",
        flow(facts.reasons, units),
        wide=True,
    )
    return Section(
        "why",
        "Why",
        f"Why {units} were kept or pruned",
        [f"Every one of the {units} has one reason, in the column reason of the decisions."],
        figures=[figure],
        tables=[table],
    )


def items(facts: Facts) -> Section:
    """Popularity before and after, by band and in full."""
    units, frame = _units(facts), facts.items
    groups = popularity_groups(frame)
    rows = []
    for band in reversed(BANDS):
        own = frame[frame["band"] == band]
        kept = own[own["sessions_after"] > 0]
        rows.append(
            (
                band,
                count(len(own)),
                count(own["sessions_before"].min() if len(own) else None),
                count(own["sessions_before"].max() if len(own) else None),
                count(len(kept)),
                percent(len(kept), len(own)),
                percent(own["interactions_after"].sum(), own["interactions_before"].sum()),
            )
        )
    bands = Table(
        "Items by band of popularity",
        [
            Column(
                "band",
                "popular: the head of the items, which has half of all session-item pairs; cold: the tail, "
                "which has a tenth",
                numeric=False,
            ),
            Column("items", "Items of the input in the band"),
            Column("fewest", f"{units.capitalize()} that hold the band's least popular item"),
            Column("most", f"{units.capitalize()} that hold the band's most popular item"),
            Column("covered", f"Items that at least one of the kept {units} holds"),
            Column("share covered", "Covered items of all the band's"),
            Column("interactions kept", "Share of the clicks on the band's items that was kept"),
        ],
        rows,
    )
    figures = [
        Figure(
            "tail",
            "The long tail",
            "Items from the most to the least popular, before and after; each line in its own order. A line "
            "that falls less steeply is a more even catalogue.",
            long_tail(frame, units),
        ),
        Figure(
            "by-popularity",
            "What popular and cold items lost",
            "Popular items can lose much and are still taught; the shaded band holds the middle half of the "
            "items. Items lost are in no kept session.",
            kept_by_popularity(groups, units),
            Table(
                "Share kept by popularity",
                [
                    Column("popularity", "Mean sessions of the group's items, before"),
                    Column("items", "Items of the group"),
                    Column("share kept", "Session-item pairs kept, of all the group's"),
                    Column("items lost", "Items of the group that no kept session holds"),
                ],
                [
                    (f"{g['popularity']:,.1f}", count(g["items"]), percent(g["share"]), percent(g["lost"]))
                    for g in groups.to_dict("records")
                ],
            ),
        ),
        Figure(
            "lengths",
            f"How long the {units} are",
            "Short ones cost less; very long ones are rarely worth their clicks.",
            by_length(facts.lengths, units),
        ),
    ]
    return Section("items", "Items", "What items kept and lost", figures=figures, tables=[bands])


def budgets(facts: Facts) -> Section:
    """What a smaller budget would have kept: the ranks nest, so that no other run is needed."""
    run, units, curve = facts.run, _units(facts), facts.curve
    covered = {band: int((facts.items["band"] == band).sum()) for band in BANDS}
    numbers = [
        Number("rank up to", "", "Largest prune_rank of the smaller selection", id="what-if-rank"),
        Number(units, "", f"{units.capitalize()} up to that rank", id="what-if-sessions"),
        Number("interactions", "", "Their clicks", id="what-if-interactions"),
        Number("items covered", "", "Items that they hold", id="what-if-items"),
        Number("cold items covered", "", "Items of the band cold that they hold", id="what-if-cold"),
        Number("objective", "", _MEANS["objective"], id="what-if-objective"),
    ]
    chart = coverage(curve, facts.items, int(run["interactions_before"]))
    figure = Figure(
        "coverage",
        "Coverage against the budget",
        "Cold items come late: what most sessions ask for is covered first. The line follows the slider.",
        chart,
        wide=True,
    )
    points = {name: _plain(curve[name]) for name in curve.columns}
    return Section(
        "what-if",
        "What if",
        "What if I kept less?",
        [
            f"The ranks nest: the first k of this run are what a run with a smaller budget keeps. This run "
            f"ends at {percent(run['interactions_after'], run['interactions_before'])} of the interactions; "
            "for more, prune again with a larger --ratio."
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
            "sql": f"SELECT * FROM {sql_name(facts.output)} WHERE prune_rank <= ",
        },
    )


def _plain(values: pd.Series) -> list[float | int | None]:
    """Numbers for JSON, which knows no NaN."""
    return [None if v != v else (int(v) if float(v).is_integer() else round(float(v), 5)) for v in values]


def difficulty(facts: Facts, fairness: Mapping[str, Any] | None) -> Section | None:
    """How the experts see the data; None where none were asked.

    Args:
        facts: the run.
        fairness: of the bundle's first fold (see `experts.fairness`); None where it is not at hand.
    """
    if facts.losses.empty:
        return None
    units = _units(facts)
    score = facts.settings.get("score", "nll")
    figures = [
        Figure(
            "kept-by-difficulty",
            "What was kept by difficulty",
            "Twentieths of all, the easiest on the left. Low on the right: what looks like noise comes last.",
            kept_by_difficulty(facts.shares, units),
        ),
        Figure(
            "losses",
            "What each expert finds hard",
            "Mean loss of a session under each expert and under their mixture; better is further left.",
            loss_densities(facts.losses, units),
        ),
        Figure(
            "loss-kept",
            "All and kept",
            "The mixture's loss: shares of all and of the kept, so that equal curves are an even choice.",
            loss_kept(facts.losses, units),
        ),
    ]
    tables = []
    if fairness is not None:
        deciles = fairness["deciles"]
        figures += [
            Figure(
                "gate",
                "Whom the gate trusts",
                "Weight of each expert by the popularity of what is to be predicted: apart where one is "
                "trusted with cold targets and another with popular ones.",
                by_popularity(deciles, "gate", "weight of the gate"),
            ),
            Figure(
                "loss-by-popularity",
                "Cold targets are hard for everyone",
                "Mean loss by popularity of the target. The adjusted score takes away the mean of the "
                "target's band, so that cold is not by itself hard.",
                by_popularity(deciles, "loss", "mean loss, nats"),
            ),
            Figure(
                "disagreement",
                "Where the experts disagree",
                "Standard deviation of the three losses by popularity of the target.",
                by_popularity(deciles, "disagreement", "disagreement, nats"),
            ),
        ]
        spearman = fairness["spearman"]
        names = {
            **{kind: LABELS[kind] for kind in EXPERTS},
            MIXTURE: "mixture",
            "adjusted": "mixture, adjusted",
        }
        tables.append(
            Table(
                "Is the score fair to cold items?",
                [
                    Column("loss of", numeric=False),
                    Column(
                        "Spearman with popularity",
                        "Rank correlation of the loss with the target's popularity over sessions held out of "
                        "training, fold 0; 0 is fair, -1 says only that the cold is hard",
                    ),
                ],
                [(label, f"{spearman[key]:+.3f}") for key, label in names.items() if key in spearman],
            )
        )
    lead = [
        f"Difficulty is the score {score!r} of the mixture of three frozen experts, as a percentile rank: "
        "higher is harder. No session is scored by experts that were trained on it."
    ]
    return Section("difficulty", "Difficulty", "How hard, and for whom", lead, figures=figures, tables=tables)


def map_of(facts: Facts, drawn: int, of: int) -> Section:
    """The place of the map; its points come from the page's data.

    Args:
        facts: the run.
        drawn: points.
        of: sessions, or samples, of all.
    """
    units = _units(facts)
    what = (
        f"All {count(of)} {units}."
        if drawn == of
        else f"{count(drawn)} of the {count(of)} {units}, drawn by a hash of their ids: an even sample."
    )
    return Section(
        "map",
        "Map",
        "A map of the data",
        [
            f"{what} Two are near each other where the experts expect alike next items (UMAP of the "
            "mixture's states; distances within a neighbourhood mean something, those across it do not). "
            "Large dots were kept. Clusters are named by the items that set them apart. Drag to move, hold "
            "Shift and turn the wheel to zoom."
        ],
        kind="map",
    )


def examples_of(facts: Facts, rows: pd.DataFrame) -> Section:
    """A few sessions of every reason, duplicates and noise first."""
    units = _units(facts)
    first = ["DUPLICATE", "BOT", "NOISE", "COVERED", "BUDGET"]
    order = [*first, *(name for name in REASONS if name not in first)]
    tables = []
    for reason in order:
        own = rows[rows["reason"] == reason]
        if own.empty:
            continue
        covered = own["covered_by"].notna().any()
        columns = [
            Column(units[:-1], numeric=False),
            Column("clicks", "Items in order of time", numeric=False),
            Column("interactions", "Number of clicks"),
            Column("difficulty", "Percentile rank, from 0 to 1, higher = harder"),
            *(
                [
                    Column("stands for it", "The kept one that shares most of its patterns", numeric=False),
                    Column("its clicks", "Items in order of time", numeric=False),
                ]
                if covered
                else []
            ),
        ]
        cells = []
        for row in own.to_dict("records"):
            cell = [
                _named(row["session_id"], row.get("length")),
                _clicks(row["clicks"]),
                count(row["interactions"]),
                _decimal(row["difficulty"]),
            ]
            if covered:
                cell += [
                    _named(row["covered_by"], row.get("covered_by_length")),
                    _clicks(row["cover_clicks"]),
                ]
            cells.append(cell)
        tables.append(Table(f"{reason}: {REASONS[reason]}", columns, cells))
    return Section(
        "examples",
        "Examples",
        "Duplicates, noise, and the others: examples",
        [f"Drawn by hash from the {units} of each reason, three clicks or longer where there are such."],
        tables=tables,
    )


def _named(session: Any, length: Any) -> str:
    if session is None or session != session:
        return "–"
    name = str(int(session)) if isinstance(session, float) else str(session)
    return name if length is None or length != length else f"{name}, first {int(length)}"


def _clicks(clicks: Sequence[Any] | None) -> str:
    if clicks is None or isinstance(clicks, float):
        return "–"
    more = len(clicks) - _CLICKS_SHOWN
    shown = " → ".join(str(item) for item in clicks[:_CLICKS_SHOWN])
    return f"{shown} … {more:,} more" if more > 0 else shown


def _decimal(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"


def around(found: Neighbourhood) -> Section:
    """One session and the kept sessions around it."""
    stands = next((entry.label for entry in found.kept if entry.is_cover), None)
    left = f" {found.left_out} more of its items are not drawn." if found.left_out else ""
    lead = [
        f"Session {found.session} is {found.reason}: {REASONS.get(found.reason, '')}. Its clicks: "
        f"{_clicks(found.clicks)}.{left}",
    ]
    if stands:
        lead.append(f"Session {stands} stands for it: of all kept ones it shares most of its patterns.")
    figure = Figure(
        "neighbours",
        "The session, its items, and who keeps them",
        "On the left the session, in the middle its items, on the right kept sessions that hold them.",
        neighbourhood(found),
        Table(
            "Kept sessions that hold its items",
            [Column("session", numeric=False), Column("what", numeric=False)],
            [(entry.label, entry.tells) for entry in found.kept],
        ),
        wide=True,
    )
    return Section("neighbours", "Neighbours", "One session among its neighbours", lead, figures=[figure])


def performances(found: Measured) -> Section:
    """What an evaluation measured on this input."""
    targets = list(dict.fromkeys(found.rows["target"]))
    figures = [
        Figure(
            f"performance-{number}",
            target,
            "The dashed line is all the data; shaded are 95 % intervals over test sessions.",
            performance(found.rows, target),
        )
        for number, target in enumerate(targets)
    ]
    rows = found.rows
    table = Table(
        "Recall@20",
        [
            Column("target", "The recommender that was trained on what was kept", numeric=False),
            Column("method", "Who chose; graph is ours, all stands for all the data", numeric=False),
            Column("ratio", "Share of the interactions kept"),
            Column("Recall@20", "Share of the test cases whose next item is among the first 20 of all items"),
            Column("95 % from", "By bootstrap over the test sessions"),
            Column("to", "By bootstrap over the test sessions"),
            Column("seeds", "Prunings and trainings that it is the mean of"),
        ],
        [
            (
                r["target"],
                r["method"],
                percent(r["ratio"], digits=0),
                percent(r["mean"]),
                percent(r["low"]),
                percent(r["high"]),
                count(r["seeds"]),
            )
            for r in rows.to_dict("records")
        ],
    )
    return Section(
        "performance",
        "Worth",
        "What it is worth",
        [
            f"Recommenders trained on what was kept, tested on later sessions ({found.data_set}, "
            f"{found.split} split, regime {found.regime}, evaluation {found.run_id}). Random is the same "
            "number of interactions, drawn by chance."
        ],
        figures=figures,
        tables=[table],
    )


def the_run(facts: Facts, commands: Sequence[tuple[str, str]]) -> Section:
    """Where the time went, the settings, and how to look further."""
    run = facts.run
    stages = run["stages"] or []
    seconds = sum(float(s["seconds"]) for s in stages)
    details = [
        ("run", run["run_id"]),
        (
            "input",
            f"{run['input']}"
            + (f", version {run['input_version']}" if run["input_version"] is not None else ""),
        ),
        ("experts", run["experts_version"] or "none"),
        ("seed", str(run["seed"])),
        ("settings' hash", str(run["settings_hash"])[:12]),
        ("finished", f"{run['finished_at']:%Y-%m-%d %H:%M:%S}"),
        *sorted((run["versions"] or {}).items()),
    ]
    return Section(
        "run",
        "Run",
        "The run",
        [f"{seconds:,.0f} seconds in {len(stages)} stages, without the start of Spark."],
        figures=[
            Figure(
                "stages",
                "Seconds by stage",
                "As the run recorded them, before its tables were written.",
                seconds_by_stage(stages),
                Table(
                    "Stages",
                    [
                        Column("stage", numeric=False),
                        Column("seconds", "Wall time"),
                        Column("rows", "Rows that came out of it"),
                    ],
                    [(s["name"], f"{s['seconds']:,.1f}", count(s["rows"])) for s in stages],
                ),
            )
        ],
        tables=[
            Table(
                "What made it",
                [Column("what", numeric=False), Column("value", numeric=False)],
                [(str(k), str(v)) for k, v in details],
            )
        ],
        code=commands,
    )

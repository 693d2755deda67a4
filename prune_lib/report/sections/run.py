"""What it is worth, and how it was made."""

from __future__ import annotations

from collections.abc import Sequence

from prune_lib.report.charts.results import performance
from prune_lib.report.charts.run import seconds_by_stage
from prune_lib.report.facts import Facts, Measured
from prune_lib.report.parts import Column, Figure, Section, Table, count, percent
from prune_lib.summary import window_of

__all__ = ["performances", "the_run"]


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
                f"{100 * r['ratio']:g} %",
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
            + (f", version {run['input_version']}" if run["input_version"] is not None else "")
            + window_of(run),
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

"""Sessions by name: examples of every reason, and one among its neighbours."""

from __future__ import annotations

from typing import Any

import pandas as pd

from prune_lib.report.charts.sessions import neighbourhood
from prune_lib.report.facts import Facts, Neighbourhood
from prune_lib.report.parts import Column, Figure, Section, Table, count
from prune_lib.report.sections.words import clicks, decimal, units
from prune_lib.schemas import REASONS

__all__ = ["around", "examples_of"]


def examples_of(facts: Facts, rows: pd.DataFrame) -> Section:
    """A few sessions of every reason, duplicates and noise first."""
    unit = units(facts)
    first = ["DUPLICATE", "BOT", "NOISE", "COVERED", "BUDGET"]
    order = [*first, *(name for name in REASONS if name not in first)]
    tables = []
    for reason in order:
        own = rows[rows["reason"] == reason]
        if own.empty:
            continue
        covered = own["covered_by"].notna().any()
        columns = [
            Column(unit[:-1], numeric=False),
            Column("clicks", "Items in order of time", numeric=False),
            Column("interactions", "Number of clicks"),
            Column("difficulty", "Percentile rank, from 0 to 1, higher = harder"),
            *(
                [
                    Column("stands for it", "A kept one that shares much of it", numeric=False),
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
                clicks(row["clicks"]),
                count(row["interactions"]),
                decimal(row["difficulty"]),
            ]
            if covered:
                cell += [
                    _named(row["covered_by"], row.get("covered_by_length")),
                    clicks(row["cover_clicks"]),
                ]
            cells.append(cell)
        tables.append(Table(f"{reason}: {REASONS[reason]}", columns, cells))
    return Section(
        "examples",
        "Examples",
        "Duplicates, noise, and the others: examples",
        [f"Drawn by hash from the {unit} of each reason, three clicks or longer where there are such."],
        tables=tables,
    )


def _named(session: str | None, length: Any) -> str:
    if session is None:
        return "–"
    return session if length is None or length != length else f"{session}, first {int(length)}"


def around(found: Neighbourhood) -> Section:
    """One session and the kept sessions around it."""
    stands = next((entry.label for entry in found.kept if entry.is_cover), None)
    left = f" {found.left_out} more of its items are not drawn." if found.left_out else ""
    lead = [
        f"Session {found.session} is {found.reason}: {REASONS.get(found.reason, '')}. Its clicks: "
        f"{clicks(found.clicks)}.{left}",
    ]
    if stands:
        lead.append(
            f"Session {stands} stands for it: of the kept ones that come first for its patterns it shares "
            "most."
        )
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

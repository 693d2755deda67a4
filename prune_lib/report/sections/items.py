"""What items kept and lost."""

from __future__ import annotations

from prune_lib.report.charts.items import kept_by_popularity, long_tail, popularity_groups
from prune_lib.report.charts.run import by_length
from prune_lib.report.facts import BANDS, Facts
from prune_lib.report.parts import Column, Figure, Section, Table, count, percent
from prune_lib.report.sections.words import as_designed, units

__all__ = ["items"]


def items(facts: Facts) -> Section:
    """Popularity before and after, by band and in full."""
    unit, frame = units(facts), facts.items
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
            Column("fewest", f"{unit.capitalize()} that hold the band's least popular item"),
            Column("most", f"{unit.capitalize()} that hold the band's most popular item"),
            Column("covered", f"Items that at least one of the kept {unit} holds"),
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
            long_tail(frame, unit),
        ),
        Figure(
            "by-popularity",
            "What popular and cold items lost",
            "Popular items can lose much and are still taught; the shaded band holds the middle half of the "
            "items. Items lost are in no kept session.",
            kept_by_popularity(groups, unit),
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
            f"How long the {unit} are",
            "Shares of all and of the kept."
            # A sample costs as much as any other.
            + (
                " Short ones cost less; very long ones are rarely worth their clicks."
                if as_designed(facts) and facts.run["budget"] == "interactions" and not facts.samples
                else ""
            ),
            by_length(facts.lengths, unit),
        ),
    ]
    return Section("items", "Items", "What items kept and lost", figures=figures, tables=[bands])

"""How the experts see the data: difficulty, gate, the map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune_lib.experts.settings import EXPERTS
from prune_lib.report.charts.experts import by_popularity, kept_by_difficulty, loss_densities, loss_kept
from prune_lib.report.charts.parts import LABELS
from prune_lib.report.facts import MIXTURE, Facts
from prune_lib.report.parts import Column, Figure, Section, Table, count
from prune_lib.report.sections.words import as_designed, units

__all__ = ["difficulty", "map_of"]


def difficulty(facts: Facts, fairness: Mapping[str, Any] | None) -> Section | None:
    """How the experts see the data; None where none were asked.

    Args:
        facts: the run.
        fairness: of the bundle's first fold (see `experts.fairness`); None where it is not at hand.
    """
    if facts.losses.empty:
        return None
    unit = units(facts)
    score = facts.settings.get("score", "nll")
    figures = [
        Figure(
            "kept-by-difficulty",
            "What was kept by difficulty",
            "Twentieths of all, the easiest on the left."
            + (" Low on the right: what looks like noise comes last." if as_designed(facts) else ""),
            kept_by_difficulty(facts.shares, unit),
        ),
        Figure(
            "losses",
            "What each expert finds hard",
            "Mean loss of a session under each expert and under their mixture; better is further left.",
            loss_densities(facts.losses, unit),
        ),
        Figure(
            "loss-kept",
            "All and kept",
            "The mixture's loss: shares of all and of the kept, so that equal curves are an even choice.",
            loss_kept(facts.losses, unit),
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
    unit = units(facts)
    what = (
        f"All {count(of)} {unit}."
        if drawn == of
        else f"{count(drawn)} of the {count(of)} {unit}, drawn by a hash of their ids: an even sample."
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

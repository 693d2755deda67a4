"""Difficulty, gate and disagreement: how the experts see the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from prune_lib.experts.settings import EXPERTS
from prune_lib.report.charts.parts import (
    EXPERT_COLOURS,
    LABELS,
    PERCENT,
    Spec,
    coloured,
    lines,
    specification,
)
from prune_lib.report.facts import MIXTURE, TWENTIETHS

__all__ = ["by_popularity", "kept_by_difficulty", "loss_densities", "loss_kept"]


def _density(losses: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    summed = losses.groupby([*by, "low", "high"], as_index=False)["sessions"].sum()
    total = summed.groupby(by)["sessions"].transform("sum")
    middle = (summed["low"] + summed["high"]) / 2
    out: pd.DataFrame = summed.assign(share=(summed["sessions"] / total).round(6), loss=middle.round(3))
    return out


def loss_densities(losses: pd.DataFrame, unit: str) -> Spec:
    """How the losses of all sessions are distributed, by expert and for the mixture.

    Args:
        losses: see `tables.losses`.
        unit: what sessions are called.
    """
    data = _density(losses, ["expert"]).replace({"expert": LABELS})
    return specification(
        _curves(data, "expert:N", EXPERT_COLOURS, unit),
        f"Distribution of the mean loss of the {unit} under each expert and under the mixture.",
    )


def loss_kept(losses: pd.DataFrame, unit: str) -> Spec:
    """How the mixture's loss is distributed among all sessions and among the kept ones.

    Args:
        losses: see `tables.losses`.
        unit: what sessions are called.
    """
    own = losses[losses["expert"] == MIXTURE]
    parts = [
        _density(own.assign(of=f"all {unit}"), ["of"]),
        _density(own[own["kept"]].assign(of="kept"), ["of"]),
    ]
    data = pd.concat(parts, ignore_index=True)
    return specification(
        _curves(data, "of:N", {f"all {unit}": "@all", "kept": "@kept"}, unit),
        f"Distribution of the mixture's loss among all {unit} and among those kept.",
    )


def _curves(data: pd.DataFrame, series: str, roles: dict[str, str], unit: str) -> Any:
    return lines(
        data,
        alt.X("loss:Q", title="mean loss of a session, nats (higher = harder)"),
        alt.Y("share:Q", title=f"share of the {unit}", axis=alt.Axis(format=PERCENT)),
        coloured(series, roles),
        [
            alt.Tooltip(series, title="of"),
            alt.Tooltip("low:Q", title="loss from", format=".2f"),
            alt.Tooltip("high:Q", title="to", format=".2f"),
            alt.Tooltip("sessions:Q", title=unit, format=","),
            alt.Tooltip("share:Q", format=".2%"),
        ],
    )


def kept_by_difficulty(shares: pd.DataFrame, unit: str) -> Spec:
    """Share kept by twentieth of the difficulty rank.

    Args:
        shares: see `tables.shares`.
        unit: what sessions are called.
    """
    data = shares.assign(
        share=(shares["kept"] / shares["sessions"]).round(5),
        low=shares["twentieth"] / TWENTIETHS,
        high=(shares["twentieth"] + 1) / TWENTIETHS,
    )
    bars = (
        alt.Chart(data)
        .mark_bar(color="@kept")
        .encode(
            x=alt.X(
                "low:Q",
                bin="binned",
                title="difficulty rank (0 easiest, 1 hardest)",
                scale=alt.Scale(domain=[0, 1]),
            ),
            x2="high:Q",
            y=alt.Y("share:Q", title=f"share of the {unit} kept", axis=alt.Axis(format=PERCENT)),
            tooltip=[
                alt.Tooltip("low:Q", title="difficulty from", format=".2f"),
                alt.Tooltip("high:Q", title="to", format=".2f"),
                alt.Tooltip("sessions:Q", title=unit, format=","),
                alt.Tooltip("kept:Q", format=","),
                alt.Tooltip("share:Q", title="share kept", format=".1%"),
            ],
        )
    )
    return specification(bars, f"Share of the {unit} kept, by their difficulty.")


def by_popularity(deciles: Sequence[Mapping[str, Any]], what: str, title: str) -> Spec:
    """A quantity of each expert by popularity of the target.

    Args:
        deciles: of the bundle's fairness, rarest first (see `experts.fairness`).
        what: `gate`, `loss`, or `disagreement`.
        title: of the axis.
    """
    rows = [
        {
            "popularity": (d["from"] + d["to"]) / 2,
            "from": d["from"],
            "to": d["to"],
            "expert": label,
            "value": d[key],
        }
        for d in deciles
        for key, label in _columns(what)
    ]
    data = pd.DataFrame(rows)
    roles = {label: EXPERT_COLOURS.get(label, "@ink") for _, label in _columns(what)}
    chart = lines(
        data,
        alt.X(
            "popularity:Q", title="popularity of the target, training sessions", scale=alt.Scale(type="log")
        ),
        alt.Y("value:Q", title=title, axis=alt.Axis(format=PERCENT) if what == "gate" else alt.Axis()),
        coloured("expert:N", roles),
        [
            alt.Tooltip("expert:N", title="of"),
            alt.Tooltip("from:Q", title="popularity from"),
            alt.Tooltip("to:Q", title="to"),
            alt.Tooltip("value:Q", title=title, format=".3f"),
        ],
    )
    return specification(chart, f"{title} by popularity of the target.", 230)


def _columns(what: str) -> list[tuple[str, str]]:
    if what == "disagreement":
        return [("disagreement", "disagreement")]
    experts = [(f"{what}_{kind}", LABELS[kind]) for kind in EXPERTS]
    return experts if what == "gate" else [*experts, (f"{what}_{MIXTURE}", LABELS[MIXTURE])]

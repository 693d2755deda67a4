"""What the report shows, as plain data of bounded size; no Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from prune_lib.lookup import Versions

__all__ = ["BANDS", "MIXTURE", "TWENTIETHS", "Entry", "Facts", "Measured", "Neighbourhood", "Sample"]

BANDS = ("cold", "mid", "popular")
#: What the mixture's loss is called beside the experts'.
MIXTURE = "mixture"
#: Parts of equal width that the difficulty's ranks are shown in.
TWENTIETHS = 20


@dataclass(frozen=True)
class Facts:
    """A run, summed up.

    Attributes:
        output: the pruned table.
        run: the run's row of the runs table.
        settings: of the run.
        samples: whether samples were chosen (`--unit prefix`); what is said of sessions is of samples then.
        reasons: reason, kept, sessions, interactions, difficulty (mean rank).
        items: a row an item: band, sessions_before, sessions_after, interactions_before,
            interactions_after.
        curve: see `tables.curve`.
        losses: see `tables.losses`; empty where no experts were used.
        shares: see `tables.shares`; empty where no experts were used.
        lengths: interactions (those of 20 and more as 20), kept, sessions.
        versions: of the run's tables, by kind; those that are not known are absent.
    """

    output: str
    run: Mapping[str, Any]
    settings: Mapping[str, Any]
    samples: bool
    reasons: pd.DataFrame
    items: pd.DataFrame
    curve: pd.DataFrame
    losses: pd.DataFrame
    shares: pd.DataFrame
    lengths: pd.DataFrame
    versions: Versions = field(default_factory=dict)

    def as_of(self, kind: str) -> str:
        """What SQL puts after a table's name to have it as this run left it."""
        return f" VERSION AS OF {self.versions[kind]}" if kind in self.versions else ""


@dataclass(frozen=True)
class Sample:
    """Sessions, or samples, drawn by hash.

    Attributes:
        rows: session_id (as text), length (of samples), kept, rank, reason, difficulty, disagreement,
            gate_{expert}, interactions, clicks (list of items; None where the input cannot be read).
        of: how many there are in all.
    """

    rows: pd.DataFrame
    of: int

    @property
    def whole(self) -> bool:
        """Whether it is all of them."""
        return len(self.rows) == self.of


@dataclass(frozen=True)
class Entry:
    """An item or a kept session in the picture.

    Attributes:
        id: as text.
        label: what stands beside it.
        tells: what it says when it is pointed at.
        items: ids of the items of the picture that a kept session holds.
        is_cover: whether it is the kept session that stands for the one in the middle.
    """

    id: str
    label: str
    tells: str
    items: tuple[str, ...] = ()
    is_cover: bool = False


@dataclass(frozen=True)
class Neighbourhood:
    """The picture of one session.

    Attributes:
        session: its id.
        reason: why it was kept or pruned.
        clicks: its items in order of time.
        items: its distinct items, the first ones.
        kept: kept sessions that hold them, the one that stands for it first.
        left_out: distinct items that are not drawn.
    """

    session: str
    reason: str
    clicks: list[str]
    items: list[Entry]
    kept: list[Entry]
    left_out: int


@dataclass(frozen=True)
class Measured:
    """What an evaluation found.

    Attributes:
        rows: target, method (all: the full data), ratio, mean, low, high, seeds.
        data_set: its name.
        split: validation or test.
        regime: how long was trained.
        run_id: of the evaluation.
    """

    rows: pd.DataFrame
    data_set: str
    split: str
    regime: str
    run_id: str

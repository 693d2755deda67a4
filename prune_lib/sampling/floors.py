"""Floors: groups of sessions, by item or by a value of a column, of which a least number is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from prune_lib.sessions.encoding import Encoded
from prune_lib.settle import settle

__all__ = ["Floors", "item_floors", "joined_floors"]


@dataclass(frozen=True)
class Floors:
    """Groups and what each wants.

    Attributes:
        rows: sid BIGINT, groups ARRAY<INT>: the groups that a session is in; settled.
        wanted: sessions that are to be kept, by group, 0 for none; shape (G,).
        names: the flags that ask for them.
        of_sequences: whether sessions of one sequence of items are always in the same groups.
    """

    rows: DataFrame
    wanted: npt.NDArray[np.int64]
    names: tuple[str, ...]
    of_sequences: bool

    @property
    def copies_count(self) -> bool:
        """Whether a second session of the same sequence of items can be of use to a floor."""
        return not self.of_sequences or bool((self.wanted > 1).any())


def item_floors(encoded: Encoded, floor: int) -> Floors | None:
    """Every item that at least `floor` sessions hold keeps as many; None where there is no such item.

    Cost: a pass over the sessions.
    """
    wanted = np.where(encoded.item_sessions >= floor, floor, 0).astype(np.int64)
    if floor <= 0 or not wanted.any():
        return None
    rows = settle(encoded.sessions.select("sid", F.array_distinct("items").alias("groups")))
    return Floors(rows, wanted, (f"--floor {floor}",), of_sequences=True)


def joined_floors(parts: list[Floors]) -> Floors | None:
    """Several floors as one: their groups one after the other."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    first, rows = 0, None
    for part in parts:
        own = part.rows.select("sid", _shifted("groups", first).alias("groups"))
        rows = own if rows is None else rows.unionByName(own)
        first += part.wanted.size
    assert rows is not None
    together = settle(
        rows.groupBy("sid").agg(F.array_sort(F.flatten(F.collect_list("groups"))).alias("groups"))
    )
    return Floors(
        together,
        np.concatenate([part.wanted for part in parts]),
        tuple(name for part in parts for name in part.names),
        of_sequences=all(part.of_sequences for part in parts),
    )


def _shifted(column: str, by: int) -> Column:
    return F.transform(column, lambda group: (group + F.lit(by)).cast("int"))

"""What inputs that do not fit here would take on a cluster, by what the two largest took here.

A stage's seconds are taken for three parts: what tasks did side by side, which is divided by the cores; what
a task did alone; and the rest, in which the driver planned, collected or waited. Each part is drawn on in a
straight line through the two sizes. Nothing of this was seen on a cluster: there is no network in it, no
straggler, no lost executor, and no start of machines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["CLUSTER", "SCORING", "Cluster", "Forecast", "clicks_at", "forecast"]

#: Core seconds to score a session: the stage took two cores 63.4 s for diginetica's 186,670, its first run
#: on them (`docs/experts.md`).
SCORING = 2 * 63.4 / 186_670
#: Bytes of a pattern on the driver, and in each Python worker: 64 million are 10 GB there and 1.6 GB here.
ON_DRIVER, IN_WORKER = 10e9 / 64e6, 1.6e9 / 64e6


@dataclass(frozen=True)
class Cluster:
    """Machines of one kind.

    Attributes:
        name: what they are.
        machines: how many execute tasks; the driver is one more.
        cores: of each.
        price: of a machine and hour, in dollars.
        memory: of each, in bytes.
    """

    name: str
    machines: int
    cores: int
    price: float
    memory: float = math.inf


CLUSTER = Cluster(
    "AWS m6i.4xlarge (16 virtual cores, 64 GiB; $0.768 an hour in us-east-1)", 16, 16, 0.768, 64 * 2.0**30
)


@dataclass(frozen=True)
class Forecast:
    """Of an input of so many clicks.

    Attributes:
        seconds: by stage; `difficulty` where every session is scored.
        patterns: of its graph, by the power law through the two sizes.
        shuffled: bytes.
        dollars: for all machines and the driver, as long as all stages take.
        driver: bytes of the patterns on the driver.
        machine: bytes of the patterns on a machine, in the Python worker of each core.
        fits: whether a machine holds either.
    """

    seconds: Mapping[str, float]
    patterns: float
    shuffled: float
    dollars: float
    driver: float
    machine: float
    fits: bool


def forecast(
    rows: Sequence[Mapping[str, Any]], clicks: float, cluster: Cluster, scoring: float = SCORING
) -> Forecast:
    """Draw two measurements on.

    Args:
        rows: the results of `scale.py`, the two largest last.
        clicks: of the input that is asked about.
        cluster: where.
        scoring: core seconds to score a session.
    """
    one, two = (row["passes"][0] for row in rows[-2:])
    cores, here = cluster.machines * cluster.cores, (rows[-2]["cores"], rows[-1]["cores"])

    def drawn(a: float, b: float) -> float:
        slope: float = max(0.0, (b - a) / (two["interactions"] - one["interactions"]))
        return b + slope * (clicks - float(two["interactions"]))

    seconds = {}
    for stage in two["stages"]:
        parts = [_parts(of, stage, n) for of, n in zip((one, two), here, strict=True)]
        together, alone, rest = (drawn(*pair) for pair in zip(*parts, strict=True))
        seconds[stage] = together / cores + alone + rest
    seconds["difficulty"] = two["sessions"] / two["interactions"] * clicks * scoring / cores
    hours = sum(seconds.values()) / 3600
    patterns = two["patterns"] * (clicks / two["interactions"]) ** _exponent(one, two)
    driver, machine = ON_DRIVER * patterns, IN_WORKER * patterns * cluster.cores
    return Forecast(
        seconds,
        patterns,
        1e6 * drawn(*(sum(of["shuffled MB"].values()) for of in (one, two))),
        hours * (cluster.machines + 1) * cluster.price,
        driver,
        machine,
        max(driver, machine) < cluster.memory,
    )


def clicks_at(rows: Sequence[Mapping[str, Any]], patterns: float) -> float:
    """Clicks of an input whose graph has so many patterns."""
    one, two = (row["passes"][0] for row in rows[-2:])
    more: float = (patterns / two["patterns"]) ** (1 / _exponent(one, two))
    return float(two["interactions"] * more)


def _exponent(one: Mapping[str, Any], two: Mapping[str, Any]) -> float:
    """How patterns grow with clicks."""
    return math.log(two["patterns"] / one["patterns"]) / math.log(two["interactions"] / one["interactions"])


def _parts(of: Mapping[str, Any], stage: str, cores: int) -> tuple[float, float, float]:
    """Core seconds side by side, seconds alone, and the rest of a stage's seconds."""
    alone = of["alone"][stage]
    together = of["busy"][stage] - alone
    return together, alone, max(0.0, of["stages"][stage] - alone - together / cores)

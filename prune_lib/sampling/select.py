"""The whole selection: floors, coverage, and what is left, in one ranking that every budget cuts.

Phases, in the order of rank:

0. *floor* (only with floors): every group gets the sessions that it is to keep, by as few clicks as greedy
   set cover finds, without those that later ones made redundant; sessions that share no transition count
   the less, the harder they are, and suspects come in only for what the others leave;
1. *coverage*: greedy on the session-pattern graph, one session of every distinct sequence;
2. *rest*: distinct sessions without anything to offer: what they hold is covered by more evidence than the
   gain's unit resolves (small catalogues, large ratios), or they are a single click;
3. *duplicate*: sessions whose sequence is kept already; reached only when the budget is larger than all
   distinct sessions together;
4. *suspect*: sessions that are set aside.

The last three are in order of their key; of those whose gain is 0 the easier first, single clicks last.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from prune_lib.errors import SettingsError
from prune_lib.graph import SessionGraph
from prune_lib.ordering import with_dense_index, with_running_total
from prune_lib.sampling.floors import Floors
from prune_lib.sampling.gains import Objective
from prune_lib.sampling.keys import received_by_pattern, with_keys
from prune_lib.sampling.rounds import Picks, RoundRecord, run_greedy
from prune_lib.sampling.task import PICK_COLUMNS
from prune_lib.settle import settle
from prune_lib.stage_meter import StageMeter

if TYPE_CHECKING:
    from prune_lib.settings import SamplingSettings

__all__ = [
    "COVERAGE",
    "DUPLICATE",
    "FLOOR",
    "REST",
    "SUSPECT",
    "Selection",
    "first_twin",
    "select_sessions",
]

FLOOR, COVERAGE, REST, DUPLICATE, SUSPECT = range(5)

# A floor counts groups; 2^-12 a group keeps the sum over a session's groups within a BIGINT.
_FLOOR_WEIGHT = 2.0**-12
# To a cover of items clicks at random are as good as any. What others do, too, is worth more to a model: a
# session that shares no transition counts the less, the harder it is, down to this: it may be all there is.
_LEAST_TRUST = 2.0**-6
# Floors are chosen before their price is known.
_NO_BUDGET = 2**62

# Session ids that are broadcast, at most: 100 MB or so.
_FEW = 2_000_000

_LOG = logging.getLogger(__name__)


@dataclass
class Selection:
    """What was picked.

    Attributes:
        ranked: a row a kept session: sid BIGINT, rank BIGINT (1 = first), phase INT, round INT,
            gain, gain_new, gain_cold BIGINT (units of 1/GAIN_UNIT, at the decision; of the floors'
            objective in phase 0). Settled.
        objective: the coverage objective after all picks.
        spent: cost of the kept sessions.
        records: a record a round.
        beyond: distinct sessions that were kept after coverage was complete, single clicks aside.
        complete: what was spent when it was; `spent` where it was not.
    """

    ranked: DataFrame
    objective: Objective
    spent: int
    records: list[RoundRecord]
    beyond: int = 0
    complete: int = 0


def first_twin(sessions: DataFrame) -> DataFrame:
    """The session that stands for all with the same sequence of items: the newest of them.

    Args:
        sessions: sid BIGINT, items ARRAY<INT>; of samples, sequence ARRAY<BIGINT> tells them apart.

    Returns:
        sid BIGINT, twin BIGINT (sid of the representative; a session's own sid where it is it).
        Cost: one shuffle by sequence and one join.
    """
    by = "sequence" if "sequence" in sessions.columns else "items"
    heads = sessions.groupBy(by).agg(F.max("sid").alias("twin"))
    return sessions.select("sid", by).join(heads, by).select("sid", "twin")


def _standing_in(twins: DataFrame, aside: DataFrame) -> DataFrame:
    """Twins in which nobody who is set aside stands for others who are not.

    A crawler's samples, or noise that others repeat, may be the newest of their sequence. The others would be
    its copies, and nothing of that sequence would enter the selection before the very end.

    Args:
        twins: of `first_twin`.
        aside: sid of those that are set aside, few.

    Returns:
        The same rows; a group whose representative is set aside has the newest of the others, where there are
        others. Cost: two joins with those that are set aside.
    """
    heads = twins.filter(F.col("sid") == F.col("twin")).join(aside, "sid", "left_semi").select("twin")
    others = twins.join(heads, "twin", "left_semi").join(aside, "sid", "left_anti")
    newest = settle(others.groupBy("twin").agg(F.max("sid").alias("head")))
    if newest.isEmpty():  # the rule: whoever is set aside is alone, or all of a group are
        return twins
    return twins.join(newest, "twin", "left").select("sid", F.coalesce("head", "twin").alias("twin"))


def select_sessions(
    graph: SessionGraph,
    x: DataFrame,
    twins: DataFrame,
    *,
    budget: int,
    cost: str,
    floors: Floors | None,
    cold: npt.NDArray[np.bool_],
    settings: SamplingSettings,
    suspects: DataFrame | None = None,
    counted: str | None = None,
) -> Selection:
    """Rank and cut: the kept sessions of a budget; a session that costs more than the budget is left out.

    Args:
        graph: its session-pattern graph.
        x: sid, x DOUBLE in [0, 1]: propagated difficulty rank, higher = harder.
        twins: of `first_twin`.
        budget: what may be spent, in interactions or sessions.
        cost: 'n' (interactions) or 'one' (sessions).
        floors: groups of sessions of which a least number is kept first.
        cold: by item index, whether the item is cold, shape (n_items,).
        settings: kappa and the rounds' settings.
        suspects: sid, last BOOLEAN: whether a session is set aside; sessions that are not in it are not.
        counted: what the budget counts, for messages; by the cost where absent.

    Raises:
        SettingsError: the budget does not hold the floors.
    """
    price = F.col("n") if cost == "n" else F.lit(1)
    if suspects is not None:
        twins = _standing_in(twins, suspects.filter("last").select("sid"))
    base = (
        graph.adjacency.join(x, "sid", "left")
        .join(twins, "sid")
        .withColumn("x", F.coalesce(F.col("x"), F.lit(0.5)))
    )
    aside = F.lit(False)
    if suspects is not None:
        base = base.join(suspects.select("sid", "last"), "sid", "left")
        aside = F.coalesce(F.col("last"), F.lit(False))
    # Target items are numbered first.
    alone = F.coalesce(F.array_max("patterns"), F.lit(-1)) < int((~graph.is_transition).sum())
    scale = F.exp(-settings.kappa * F.col("x")) / price
    sessions = settle(
        base.select(
            "sid",
            "n",
            "tie",
            scale.alias("scale"),
            "patterns",
            "messages",
            "twin",
            (F.col("twin") != F.col("sid")).alias("copy"),
            aside.alias("aside"),
            F.when(alone, F.greatest(1.0 - F.col("x"), F.lit(_LEAST_TRUST))).otherwise(1.0).alias("trust"),
        )
    )
    objective = Objective.empty(graph.weight, cold[graph.item], graph.unit)
    frames: list[DataFrame] = []
    records: list[RoundRecord] = []
    spent = 0
    if floors is not None:
        picks = _floor_picks(floors, sessions, budget, cost, settings, counted or _UNITS[cost])
        frames, records, spent = picks.frames, picks.records, picks.spent
        # Fewer than items times floor, mostly: they are sent to the sessions, not the sessions to them.
        sent = _sent(picks)
        taken = sent(settle(reduce(DataFrame.unionByName, frames).select("sid")))
        by_floor = settle(sessions.join(taken, "sid", "left_semi"))
        objective.add(*received_by_pattern(by_floor))
        # Whose sequence a floor has kept is a copy now, the one that stands for the sequence, too.
        held = sent(settle(by_floor.select("twin", F.lit(True).alias("held")).distinct()))
        open_sessions = (
            sessions.join(taken, "sid", "left_anti")
            .join(held, "twin", "left")
            .withColumn("copy", F.col("copy") | F.coalesce("held", F.lit(False)))
            .drop("held")
        )
        if picks.picked > _FEW:  # the sampler's one task must not do a join's work
            open_sessions = settle(open_sessions)
    else:
        open_sessions = sessions
    # What costs more than all that is left can never be kept: in line, it could only end the budget early.
    open_sessions = open_sessions.filter(price <= budget - spent)
    picks = run_greedy(
        open_sessions.filter(~F.col("copy") & ~F.col("aside")),
        objective,
        budget - spent,
        cost=cost,
        phase=COVERAGE,
        name="coverage",
        task_edges=_task_edges(graph.n_edges, settings),
    )
    frames, records, spent = frames + picks.frames, records + picks.records, spent + picks.spent
    beyond, complete = 0, None
    if not picks.full and spent < budget:
        done = reduce(DataFrame.unionByName, frames).select("sid") if frames else None
        left = open_sessions if done is None else open_sessions.join(done, "sid", "left_anti")
        rest = _rest_in_order(left, objective, price, budget - spent)
        frames.append(rest)
        objective.add(*received_by_pattern(sessions.join(rest.select("sid"), "sid", "left_semi")))
        saturated = (F.col("phase") == REST) & (F.col("gain") == 0) & (F.col("key") >= -1)
        row = rest.agg(F.sum(price), F.count_if(saturated)).first() or (0, 0)
        complete, beyond = spent, int(row[1])
        spent += int(row[0] or 0)
    ranked = with_dense_index(
        reduce(DataFrame.unionByName, frames).withColumn("order", -F.col("key")),
        ["phase", "round", "order", "tie", "sid"],
        name="rank",
        start=1,
    ).select("sid", "rank", "phase", "round", "gain", "gain_new", "gain_cold")
    return Selection(
        settle(ranked), objective, spent, records, beyond, spent if complete is None else complete
    )


def _floor_picks(
    floors: Floors, sessions: DataFrame, budget: int, cost: str, settings: SamplingSettings, counted: str
) -> Picks:
    """Sessions that give every group its floor: greedy set cover, suspects last, less what became redundant.

    Raises:
        SettingsError: they cost more than the budget.
    """
    wanted = floors.wanted
    no_cold = np.zeros(wanted.size, dtype=np.bool_)
    objective = Objective.empty(np.full(wanted.size, _FLOOR_WEIGHT), no_cold, unit=1, cap=wanted)
    price = F.col("n") if cost == "n" else F.lit(1)
    holders = (
        sessions.select("sid", "n", "tie", "copy", "aside", "trust")
        .join(floors.rows.withColumnRenamed("groups", "patterns"), "sid")
        .withColumn("messages", F.array_repeat(F.lit(1), F.size("patterns")))
        .withColumn("scale", F.col("trust") / price)
    )
    eligible = settle(
        (holders if floors.copies_count else holders.filter(~F.col("copy"))).drop("copy", "trust")
    )
    edges = int((eligible.agg(F.sum(F.size("patterns"))).first() or [0])[0] or 0)
    picks = Picks()
    for tier in (~F.col("aside"), F.col("aside")):
        if bool((objective.evidence >= wanted).all()):
            break
        before = picks.picked
        run_greedy(
            eligible.filter(tier).drop("aside"),
            objective,
            _NO_BUDGET,
            cost=cost,
            phase=FLOOR,
            name="floor",
            task_edges=_task_edges(edges, settings),
            picks=picks,
        )
        if picks.picked > before:  # a tier may be empty: everybody a suspect, or nobody
            # Tier by tier: a crawler makes everybody redundant.
            picks = _without_redundant(picks, floors, cost, before)
    if picks.spent > budget:
        everything = int((sessions.agg(F.sum(price)).first() or [0])[0] or 0)
        raise SettingsError(_too_little(floors, picks.spent, budget, everything, counted))
    return picks


def _without_redundant(picks: Picks, floors: Floors, cost: str, before: int) -> Picks:
    """The picks of floors, less those all of whose groups keep what they want without them.

    Greedy takes first what serves many groups; what it takes later often serves them again. The last pick is
    looked at first, as it serves fewest (the *reverse delete* step of set cover; Vazirani, Approximation
    Algorithms, 2001, has it for the primal-dual scheme). A tenth or more of the clicks is saved.

    Cost: the picks and their groups go through one task.

    Args:
        picks: numbered from 1 on.
        floors: what they are for.
        cost: 'n' (interactions) or 'one' (sessions).
        before: the first so many picks stay.
    """
    started, meter = time.monotonic(), StageMeter(floors.rows.sparkSession)
    wanted = floors.wanted
    chosen = settle(reduce(DataFrame.unionByName, picks.frames))
    price = F.col("n") if cost == "n" else F.lit(1)
    sent = _sent(picks)
    of_groups = floors.rows.join(sent(chosen.select("sid", "round")), "sid")

    def needed(rows: pd.DataFrame) -> pd.DataFrame:
        rows = rows.sort_values("round", ascending=False)
        held = np.bincount(np.concatenate(rows["groups"].to_list()), minlength=wanted.size)
        stays = np.ones(len(rows), dtype=np.bool_)
        for place, groups in enumerate(rows["groups"].iloc[: len(rows) - before]):
            if bool((held[groups] > wanted[groups]).all()):
                held[groups] -= 1
                stays[place] = False
        left = rows["sid"].to_numpy()[stays][::-1]
        found: pd.DataFrame = pd.DataFrame({"sid": left, "round": np.arange(1, left.size + 1)})
        return found

    stay: DataFrame = settle(of_groups.groupBy().applyInPandas(needed, "sid bigint, round int"))
    left = settle(chosen.drop("round").join(sent(stay), "sid").select(*PICK_COLUMNS))
    count, spent = left.agg(F.count(F.lit(1)), F.sum(price)).first() or (0, 0)
    taken_back = RoundRecord(
        "redundant",
        len(picks.records) + 1,
        0.0,
        picks.picked - before,
        int(count) - picks.picked,
        int(spent or 0) - picks.spent,
        round(time.monotonic() - started, 3),
        0,
        meter.shuffle_bytes(),
    )
    return Picks([left], int(count), int(spent or 0), False, [*picks.records, taken_back])


def _sent(picks: Picks) -> Callable[[DataFrame], DataFrame]:
    """How a frame of picks, few beside the sessions, is joined: by broadcast, unless there are very many."""
    return F.broadcast if picks.picked <= _FEW else lambda df: df


def _too_little(floors: Floors, price: int, budget: int, everything: int, unit: str) -> str:
    """That a budget does not hold the floors, and which one would."""
    floor = "floor does" if len(floors.names) == 1 else "floors do"
    ratio = math.ceil(1000 * price / everything) / 1000
    groups = int((floors.wanted > 0).sum())
    return (
        f"the {floor} not fit the budget ({', '.join(floors.names)}): what {groups:,} groups ask for was "
        f"found in {price:,} {unit}, and the budget is {budget:,}. Raise --ratio to {ratio:g}, or lower the "
        "floor."
    )


def _task_edges(n_edges: int, settings: SamplingSettings) -> int | None:
    """Edges that a round's task holds; None for all at once. By the size of the data alone."""
    all_at_once = settings.sampler == "exact" or (
        settings.sampler == "auto" and n_edges <= settings.task_edges
    )
    return None if all_at_once else settings.task_edges


_UNITS = {"n": "interactions", "one": "sessions"}


def _rest_in_order(left: DataFrame, objective: Objective, price: Column, budget: int) -> DataFrame:
    """What the rounds left, by (phase, key descending, tie, sid), as far as the budget goes."""
    keyed = with_keys(left, objective).join(left.select("sid", "copy", "aside"), "sid")
    # Keys without a gain are below all others, from -1 to 0, single clicks' from -2 to -1. A click adds about
    # as much in a long session as in a short one: their lengths cancel out, and exp(-kappa x) is left.
    easier = -1 / (1 + F.col("scale") * price) - F.when(F.size("patterns") > 0, 0).otherwise(1)
    keyed = keyed.withColumn("key", F.when(F.col("gain") > 0, F.col("key")).otherwise(easier))
    phase = F.when(F.col("aside"), SUSPECT).when(F.col("copy"), DUPLICATE).otherwise(REST)
    ordered = with_running_total(
        keyed.withColumn("phase", phase)
        .withColumn("round", F.lit(1))
        .withColumn("order", -F.col("key"))
        .withColumn("price", price.cast("bigint")),
        ["phase", "order", "tie", "sid"],
        "price",
        "running",
    )
    return settle(ordered.filter(F.col("running") <= budget).select(*PICK_COLUMNS))

"""Subsets to train on: pruned tables, cut at a budget by rank, as the targets' feed.

A method prunes once, at the largest ratio; `prune_rank` gives every smaller one, as it would a user. Only a
method whose order depends on the ratio prunes once a ratio. What the targets read is written from the pruned
Delta table by Spark: the padded feed for the neural ones, the sessions in order of time for the others.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.errors import SettingsError
from prune_lib.evaluation.files import Split, Subset, budget_of, code_hash
from prune_lib.experts.feed import Feed, write_feed
from prune_lib.fingerprint import fingerprint
from prune_lib.ordering import with_running_total
from prune_lib.settings import PruneSettings, settings_hash

__all__ = [
    "check_kept",
    "cut",
    "experts_folder",
    "prune_once",
    "subset_of",
    "write_prefixes",
    "write_subset",
]

_LOG = logging.getLogger(__name__)


def prune_once(
    spark: SparkSession, settings_at: Callable[[float], PruneSettings], split: Split, ratio: float
) -> tuple[str, dict[str, float]]:
    """Prune the split's training sessions, unless the same settings have done so at this ratio or a larger.

    Args:
        spark: the session.
        settings_at: the settings of the run at a ratio.
        split: the data.
        ratio: the least share that is to be kept.

    Returns:
        The pruned table, and seconds by stage: those of training the experts and of scoring, too, where an
        earlier run had done so.
    """
    from prune_lib.pipeline import run_prune

    settings = settings_at(ratio)
    own = Path(settings.resolved_output).parent
    # Ratios of earlier runs of this method and seed are the ends of their folders' names.
    stem = own.name.removesuffix(f"{ratio:g}")
    there = (folder.name.removeprefix(stem) for folder in own.parent.glob(f"{stem}*"))
    larger = sorted(float(end) for end in there if re.fullmatch(r"[\d.e-]+", end) and float(end) > ratio)
    # Baselines rank what the budget can afford, and one of them by the ratio itself: of these no run serves
    # another.
    nested = settings.method in ("graph", "random")
    for other in (ratio, *(larger if nested else ())):
        found = _noted(settings_at(other), split)
        if found is not None:
            return settings_at(other).resolved_output, found
    note = own / "pruned.json"
    note.unlink(missing_ok=True)  # or a run that is killed below would leave another table under this note
    own.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    summary = run_prune(settings, spark)
    seconds: dict[str, float] = {name: value for name, value, _ in summary.run["stages"]}
    # Writing, and what lies between the stages.
    seconds["rest"] = max(0.0, time.perf_counter() - started - sum(seconds.values()))
    if summary.scoring:
        _add_earlier(seconds, Path(settings.workspace) / "seconds.json", summary.scoring)
    note.write_text(json.dumps({"key": _key(settings, split), "seconds": seconds}) + "\n")
    return settings.resolved_output, seconds


def _key(settings: PruneSettings, split: Split) -> str:
    return f"{split.data_hash}/{settings_hash(settings)}/{code_hash()}"


def _noted(settings: PruneSettings, split: Split) -> dict[str, float] | None:
    """Seconds of the run that lies there, if it was of these settings, data and code."""
    note = Path(settings.resolved_output).parent / "pruned.json"
    if not note.is_file():
        return None
    done = json.loads(note.read_text())
    seconds: dict[str, float] = done["seconds"]
    return seconds if done["key"] == _key(settings, split) else None


def _add_earlier(seconds: dict[str, float], file: Path, scoring: Mapping[str, Any]) -> None:
    """Keep what training experts and scoring took; take it from there for a run that found it done."""
    version = scoring["experts"]
    done = {"training": (version, "training" in seconds)}
    done["difficulty"] = (f"{version} {scoring['score']}", not scoring["reused_sessions"])
    known = json.loads(file.read_text()) if file.is_file() else {}
    for stage, (key, anew) in done.items():
        if anew:
            known[key] = seconds[stage]
        elif key in known:
            seconds[stage] = known[key]
    file.write_text(json.dumps(known) + "\n")


def experts_folder(split: Split) -> str:
    """Workspace of a split's pruning runs: experts of other code, or of other data, are never taken."""
    return str(split.folder / f"workspace-{code_hash()}")


def cut(pruned: DataFrame, budget: int, cost: Column | None = None) -> DataFrame:
    """The first sessions by rank whose cost fits a budget, without those that alone cost more than all of it.

    Pruning at that budget leaves those out, too: in line, one of them could only end it early.

    Args:
        pruned: session_id, items, prune_rank.
        budget: in the unit of the cost.
        cost: of a row; its interactions where absent.

    Returns:
        The rows of the longest prefix of ranks that fits.
    """
    priced = pruned.withColumn("__n", F.size("items") if cost is None else cost)
    running = with_running_total(priced.filter(F.col("__n") <= budget), ["prune_rank"], "__n", "__running")
    return running.filter(F.col("__running") <= budget).drop("__n", "__running")


def check_kept(
    subset: Subset,
    who: str,
    ratio: float,
    budget: int,
    *,
    warn: Callable[[str], None],
    samples: bool = False,
) -> None:
    """Refuse a subset from which nothing can be learned, and say where much of its budget is left.

    Args:
        subset: what was cut.
        who: chose it, in words that begin a sentence's subject.
        ratio: share that it is to be.
        budget: what it may cost.
        warn: is told where less of it is used than pruning itself would find worth a word.
        samples: it counts samples, not their interactions.

    Raises:
        SettingsError: no session of two clicks is in it.
    """
    from prune_lib.pipeline import WELL_USED

    unit = "samples" if samples else "interactions"
    if not subset.targets:
        raise SettingsError(
            f"{who} keeps no session of two clicks at the ratio {ratio:g}, a budget of {budget:,} {unit}: "
            "there is nothing to learn from. Raise --ratios, or give more sessions."
        )
    spent = subset.sessions if samples else subset.interactions
    if spent < WELL_USED * budget:
        warn(
            f"{who} uses only {spent:,} of the budget of {budget:,} {unit} at the ratio {ratio:g}: the next "
            "session in line is too long for the rest"
        )


def subset_of(
    spark: SparkSession, split: Split, pruned: str | None, ratio: float, folder: Path, max_length: int
) -> Subset:
    """A share of the training sessions as a subset; what is there already of the same table is taken.

    Args:
        spark: the session.
        split: the data.
        pruned: the pruned table; None for all sessions.
        ratio: share of the interactions.
        folder: where the subset is written.
        max_length: longer sessions are cut to their last items in the feed.
    """
    if pruned is None:
        kept = spark.read.format("delta").load(split.sessions)
    else:
        table = spark.read.format("delta").load(pruned).select("session_id", "items", "place", "prune_rank")
        kept = cut(table, budget_of(ratio, split.n_interactions))
    return write_subset(kept, split.n_items, folder, max_length)


def write_subset(
    kept: DataFrame, n_items: int, folder: Path, max_length: int, *, session: Column | None = None
) -> Subset:
    """Write a subset's files.

    Args:
        kept: session_id, items ARRAY<BIGINT> of item indices, place BIGINT.
        n_items: size of the vocabulary.
        folder: where to; what is there of the same sessions is kept, of others replaced.
        max_length: longer sessions are cut to their last items in the feed.
        session: what tells sessions apart for an item's popularity; `place` where absent.

    Returns:
        The subset; where no session has two clicks one without targets, and nothing is written: who asked
        for it can say what to do (see `check_kept`).
    """
    rows = kept.select("session_id", F.col("items").cast("array<int>").alias("items"), "place")
    digest = fingerprint(rows, F.col("session_id").cast("string"), F.col("items"), F.col("place"))
    known = _known(folder, digest, n_items, max_length)
    if known is not None:
        return known
    shutil.rmtree(folder, ignore_errors=True)
    if rows.filter(F.size("items") >= 2).isEmpty():
        return Subset(folder, sessions=0, interactions=0, items=0, targets=0, hash=digest)
    folder.mkdir(parents=True)
    _write_feed(rows, folder / "feed", n_items, max_length)
    rows.orderBy("place").select("place", "items").write.parquet(str(folder / "sessions"))
    counts = (
        rows.select(
            (F.col("place") if session is None else session).alias("in"), F.explode("items").alias("item")
        )
        .groupBy("item")
        .agg(F.count_distinct("in").alias("sessions"), F.count("*").alias("interactions"))
        .toPandas()
    )
    popularity = np.zeros(n_items, np.int64)
    popularity[counts["item"].to_numpy()] = counts["sessions"].to_numpy()
    np.save(folder / "popularity.npy", popularity, allow_pickle=False)
    subset = Subset(
        folder,
        rows.count(),
        int(counts["interactions"].sum()),
        len(counts),
        Feed(folder / "feed", 0, "train").targets(n_items),
        digest,
    )
    note = {k: v for k, v in asdict(subset).items() if k != "folder"}
    note |= {"n_items": n_items, "max_length": max_length}
    (folder / "subset.json").write_text(json.dumps(note) + "\n")
    return subset


def write_prefixes(spark: SparkSession, subset: Subset, n_items: int, max_length: int) -> None:
    """Write each prefix of each session as a row of its own, as the field augments its data."""
    path = subset.folder / "prefixes"
    if (path / "_SUCCESS").is_file():
        return
    shutil.rmtree(path, ignore_errors=True)
    sessions = spark.read.parquet(str(subset.folder / "sessions"))
    lengths = F.sequence(F.lit(2), F.size("items"))
    prefixes = (
        sessions.filter(F.size("items") >= 2)
        .select("place", "items", F.explode(lengths).alias("length"))
        .select(
            F.concat_ws("#", "place", "length").alias("session_id"),
            F.slice("items", F.lit(1), F.col("length")).alias("items"),
            "place",
        )
    )
    _write_feed(prefixes, path, n_items, max_length)


def _write_feed(rows: DataFrame, path: Path, n_items: int, max_length: int) -> None:
    # Targets have no folds: everything is part `train` of fold 0.
    feed: dict[str, Any] = {"n_items": n_items, "max_length": max_length}
    write_feed(
        rows.select(
            "session_id",
            F.col("place").alias("sid"),
            "items",
            F.lit(0).alias("fold"),
            F.lit(1).alias("slice"),
        ),
        path,
        **feed,
    )


def _known(folder: Path, digest: str, n_items: int, max_length: int) -> Subset | None:
    """The subset that lies there, if it is of these rows in this form."""
    try:
        note = json.loads((folder / "subset.json").read_text())
        same = (note.pop("n_items"), note.pop("max_length"), note["hash"]) == (n_items, max_length, digest)
        return Subset(folder, **note) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""Results as tables: a row for every training and metric, and means with intervals over seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from prune_lib.evaluation.cases import Cases
from prune_lib.evaluation.cells import CellStore
from prune_lib.evaluation.intervals import Interval, across_seeds, difference, interval, relative
from prune_lib.evaluation.metrics import METRICS, SessionSums, session_sums
from prune_lib.evaluation.plan import Row
from prune_lib.popularity import popularity_bands

__all__ = ["BANDS", "KEYS", "UNIT", "band_masks", "metric_rows", "summarise"]

#: What tells one training from another within a data set and split.
KEYS = ["method", "variant", "ratio", "regime", "samples", "target"]
BANDS = ("all", "cold", "mid", "popular")
#: Variants that choose something else than whole sessions begin so.
UNIT = "unit="
_OTHERS = ("coverage", "mean_popularity", "gini")
# Where intervals are worth their time: every metric over all cases, and Recall on cold targets.
_WITH_INTERVAL = [("all", metric) for metric in METRICS] + [("cold", "recall@20")]


def band_masks(cases: Cases, item_sessions: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.bool_]]:
    """By band of the target's popularity in all training sessions, which cases are in it."""
    bands = popularity_bands(item_sessions)
    sessions = item_sessions[cases.targets]
    cold, popular = sessions <= bands.cold_max, sessions >= bands.popular_min
    return {"all": np.ones(cases.n_cases, bool), "cold": cold, "mid": ~cold & ~popular, "popular": popular}


def metric_rows(
    rows: Iterable[Row],
    store: CellStore,
    cases: Cases,
    item_sessions: npt.NDArray[np.int64],
    common: Mapping[str, Any],
) -> pd.DataFrame:
    """One row for every planned row, band and metric.

    Args:
        rows: the plan's.
        store: results of their cells.
        cases: the test cases.
        item_sessions: training sessions that hold each item.
        common: columns that all rows share (data set, split, hashes).

    Returns:
        KEYS, seed, band, metric, value, n_cases, and what the training took.
    """
    masks = band_masks(cases, item_sessions)
    out: list[dict[str, Any]] = []
    for row in rows:
        result = store.get(row.cell)
        ranks, numbers = result.ranks.astype(np.int32), result.numbers
        head = {
            **common,
            **{
                name: getattr(row, name)
                for name in (*KEYS, "seed", "cell", "recipe", "training", "steps", "learning_rate")
            },
            "sessions": row.subset.sessions,
            "interactions": row.subset.interactions,
            "items": row.subset.items,
            "passes": float(numbers.get("passes", 1.0)),
            "learned": int(numbers.get("learned", 0)),
            "train_seconds": float(numbers["train_seconds"]),
            "rank_seconds": float(numbers["rank_seconds"]),
            "prune_seconds": row.prune_seconds,
        }
        for band, mask in masks.items():
            sums = session_sums(ranks, cases, mask)
            n = int(sums.counts.sum())
            out += [{**head, "band": band, "metric": m, "value": sums.mean(m), "n_cases": n} for m in METRICS]
        out += [
            {**head, "band": "all", "metric": name, "value": float(numbers[name]), "n_cases": cases.n_cases}
            for name in _OTHERS
        ]
    frame: pd.DataFrame = pd.DataFrame(out)
    return frame


def summarise(
    trainings: pd.DataFrame,
    store: CellStore,
    cases: Cases,
    item_sessions: npt.NDArray[np.int64],
    common: Mapping[str, Any],
    former: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Means over seeds with intervals by test session, beside random and beside all the data.

    Args:
        trainings: KEYS, seed, cell; rows more than once are one.
        store: results of the cells.
        cases: the test cases.
        item_sessions: training sessions that hold each item.
        common: columns that all rows share.
        former: an earlier summary: what was computed from the same cells is taken from it.

    Returns:
        KEYS, band, metric, seeds, mean, sd (over seeds), low, high (95 %, bootstrap over test sessions of
        the seeds' mean); over_random with _low and _high (difference to random at the same budget, paired
        on the test sessions), over_ours alike (an ablation's, to the method as it is) and share_of_all; null
        where there is nothing to compare;
        cells, a hash of what all of it was computed from.
    """
    masks = band_masks(cases, item_sessions)
    compared = trainings[trainings["regime"] != "tuning"].drop_duplicates([*KEYS, "seed"])
    groups: _Groups = {
        key: dict(sorted(zip(group["seed"], group["cell"], strict=True)))
        for key, group in compared.groupby(KEYS, sort=False)
    }
    known = dict(tuple(former.groupby("cells"))) if former is not None and len(former) else {}
    out: list[pd.DataFrame] = []
    for of_target in _by_target(groups):
        # Of one target and kind of samples at a time: sums by session of all trainings are gigabytes.
        sums = _Sums(store, cases, masks)
        for key in of_target:
            mine, beside = tuple(groups[key].values()), _beside(groups, key)
            name = _digest(key, mine, beside)
            out.append(
                known[name].drop(columns=list(common), errors="ignore").assign(**common)
                if name in known
                else pd.DataFrame(
                    [{**common, **line, "cells": name} for line in _lines(key, mine, beside, sums)]
                )
            )
    frame: pd.DataFrame = pd.concat(out, ignore_index=True) if out else pd.DataFrame()
    return frame


_Cells = tuple[str, ...]
#: Cells by seed, in order.
_Groups = dict[tuple[Any, ...], dict[int, str]]


def _by_target(groups: _Groups) -> list[list[tuple[Any, ...]]]:
    """Keys of what is compared with each other, and those of no other."""
    target, samples = KEYS.index("target"), KEYS.index("samples")
    parts: dict[tuple[Any, Any], list[tuple[Any, ...]]] = {}
    for key in groups:
        parts.setdefault((key[target], key[samples]), []).append(key)
    return list(parts.values())


def _beside(groups: _Groups, key: tuple[Any, ...]) -> dict[str, _Cells]:
    """The cells that a row is compared with, by the columns that say so; of nothing with itself.

    Those of the row's own seeds: where it has fewer than the other, the rest would only be noise. Prefixes
    that were chosen one by one are trained on by their last positions, which makes them what each prefix of
    whole sessions is as a sample of its own; what was drawn at random beside them has their variant.
    """
    named = dict(zip(KEYS, key, strict=True))
    by_prefix = named["variant"].startswith(UNIT)
    whole = {"variant": "", **({"samples": "prefixes"} if by_prefix else {})}

    def of(method: str, ratio: float, **more: str) -> _Cells:
        other = {**named, **whole, "method": method, "ratio": ratio, **more}
        there = groups.get(tuple(other[name] for name in KEYS), {})
        return tuple(cell for seed, cell in there.items() if seed in groups[key]) or tuple(there.values())

    found: dict[str, _Cells] = {}
    if named["method"] not in ("random", "all"):
        alike = {name: named[name] for name in ("variant", "samples")} if by_prefix else {}
        found["over_random"] = of("random", named["ratio"], **alike)
    if named["method"] == "graph" and named["variant"]:
        found["over_ours"] = of("graph", named["ratio"])
    if named["method"] != "all":
        found["share_of_all"] = of("all", 1.0)
    return {column: cells for column, cells in found.items() if cells}


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Sums:
    """Metrics of cells, summed by session; read once. And intervals, made once of the same sums.

    Targets that count are the same under every regime: their intervals are not worth a second bootstrap.
    """

    def __init__(self, store: CellStore, cases: Cases, masks: Mapping[str, npt.NDArray[np.bool_]]) -> None:
        self._store, self._cases, self._masks = store, cases, masks
        self._read: dict[tuple[str, str], SessionSums] = {}
        self._made: dict[Any, Interval] = {}

    def of(self, cell: str, band: str) -> SessionSums:
        if (cell, band) not in self._read:
            ranks = self._store.get(cell).ranks.astype(np.int32)
            self._read[cell, band] = session_sums(ranks, self._cases, self._masks[band])
        return self._read[cell, band]

    def interval(self, make: Callable[..., Interval], band: str, metric: str, *cells: _Cells) -> Interval:
        named = (make.__name__, band, metric, *cells)
        if named not in self._made:
            counts = self.of(cells[0][0], band).counts
            sums = [np.stack([self.of(c, band).sums[metric] for c in of]) for of in cells]
            self._made[named] = make(counts, *sums)
        return self._made[named]


def _lines(
    key: tuple[Any, ...], mine: _Cells, beside: Mapping[str, _Cells], sums: _Sums
) -> Iterator[dict[str, Any]]:
    """A group's rows."""
    for band, metric in _WITH_INTERVAL:
        mean, sd = across_seeds([sums.of(cell, band).mean(metric) for cell in mine])
        around = sums.interval(interval, band, metric, mine)
        line = {
            **dict(zip(KEYS, key, strict=True)),
            "band": band,
            "metric": metric,
            "seeds": len(mine),
            "mean": mean,
            "sd": sd,
            "low": around.low,
            "high": around.high,
        }
        for column, other in beside.items():
            how, bounds = (relative, "share") if column == "share_of_all" else (difference, column)
            found = sums.interval(how, band, metric, mine, other)
            line |= {column: found.mean, f"{bounds}_low": found.low, f"{bounds}_high": found.high}
        yield line

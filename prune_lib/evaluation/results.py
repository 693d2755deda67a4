"""Results as tables: a row for every training and metric, and means with intervals over seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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

__all__ = ["BANDS", "KEYS", "band_masks", "metric_rows", "summarise"]

#: What tells one training from another within a data set and split.
KEYS = ["method", "variant", "ratio", "regime", "samples", "target"]
BANDS = ("all", "cold", "mid", "popular")
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
            **{name: getattr(row, name) for name in (*KEYS, "seed", "cell", "steps", "learning_rate")},
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
    rows: Iterable[Row],
    store: CellStore,
    cases: Cases,
    item_sessions: npt.NDArray[np.int64],
    common: Mapping[str, Any],
) -> pd.DataFrame:
    """Means over seeds with intervals by test session, beside random and beside all the data.

    Args:
        rows: as for `metric_rows`.
        store: as for `metric_rows`.
        cases: the test cases.
        item_sessions: training sessions that hold each item.
        common: columns that all rows share.

    Returns:
        KEYS, band, metric, seeds, mean, sd (over seeds), low, high (95 %, bootstrap over test sessions of
        the seeds' mean); over_random with _low and _high (difference to random at the same budget, paired
        on the test sessions) and share_of_all with _low and _high; null where there is nothing to compare.
    """
    masks = band_masks(cases, item_sessions)
    groups: dict[tuple[Any, ...], dict[int, str]] = {}
    for row in rows:
        key = tuple(getattr(row, name) for name in KEYS)
        groups.setdefault(key, {})[row.seed] = row.cell
    cells: dict[tuple[str, str], SessionSums] = {}
    # Targets that count are the same under every regime: their intervals are not worth a second bootstrap.
    known: dict[tuple[Any, ...], Interval] = {}

    def once(make: Callable[..., Interval], named: Any, *sums: npt.NDArray[Any]) -> Interval:
        if named not in known:
            known[named] = make(*sums)
        return known[named]

    def sums_of(cell: str, band: str) -> SessionSums:
        if (cell, band) not in cells:
            cells[cell, band] = session_sums(store.get(cell).ranks.astype(np.int32), cases, masks[band])
        return cells[cell, band]

    def stacked(key: tuple[Any, ...], band: str, metric: str) -> npt.NDArray[np.float64] | None:
        found = groups.get(key)
        return np.stack([sums_of(c, band).sums[metric] for c in found.values()]) if found else None

    out: list[dict[str, Any]] = []
    for key, seeds in groups.items():
        named = dict(zip(KEYS, key, strict=True))
        if named["regime"] == "tuning":
            continue
        for band, metric in _WITH_INTERVAL:
            counts = sums_of(next(iter(seeds.values())), band).counts
            mine = stacked(key, band, metric)
            assert mine is not None
            values = [sums_of(cell, band).mean(metric) for cell in seeds.values()]
            mean, sd = across_seeds(values)
            mine_of = (band, metric, tuple(seeds.values()))
            around = once(interval, mine_of, counts, mine)
            line = {
                **common,
                **named,
                "band": band,
                "metric": metric,
                "seeds": len(seeds),
                "mean": mean,
                "sd": sd,
                "low": around.low,
                "high": around.high,
            }
            rest = {k: named[k] for k in ("regime", "samples", "target")}
            random = stacked(_key("random", named["ratio"], rest), band, metric)
            if named["method"] not in ("random", "all") and random is not None:
                other = tuple(groups[_key("random", named["ratio"], rest)].values())
                gap = once(difference, ("-", *mine_of, other), counts, mine, random)
                line |= {
                    "over_random": gap.mean,
                    "over_random_low": gap.low,
                    "over_random_high": gap.high,
                }
            everything = stacked(_key("all", 1.0, rest), band, metric)
            if named["method"] != "all" and everything is not None:
                whole = tuple(groups[_key("all", 1.0, rest)].values())
                share = once(relative, ("/", *mine_of, whole), counts, mine, everything)
                line |= {"share_of_all": share.mean, "share_low": share.low, "share_high": share.high}
            out.append(line)
    frame: pd.DataFrame = pd.DataFrame(out)
    return frame


def _key(method: str, ratio: float, rest: Mapping[str, Any]) -> tuple[Any, ...]:
    named = {"method": method, "variant": "", "ratio": ratio, **rest}
    return tuple(named[name] for name in KEYS)

"""From an evaluation's tables to the numbers of its data sets and splits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from prune_lib.evaluation.intervals import Interval
from prune_lib.evaluation.sections.part import ORDER, SAMPLES, Found, Key, Part

__all__ = ["parts_of"]

_KEY = list(Key._fields)


def parts_of(values: pd.DataFrame, summary: pd.DataFrame) -> list[Part]:
    """The data sets and splits of an evaluation's tables; tests first, in the order of the tables.

    Args:
        values: a row for every training, band and metric.
        summary: means over seeds, with intervals.
    """
    values, summary = _plain(values), _plain(summary)
    names = dict.fromkeys(
        (row.data_set, row.split)
        for frame in (summary, values)
        for row in frame[["data_set", "split"]].drop_duplicates().itertuples()
    )
    parts = [
        _part(str(data_set), str(split), *(_of(frame, data_set, split) for frame in (values, summary)))
        for data_set, split in names
    ]
    return sorted((part for part in parts if part.found), key=lambda part: part.split != "test")


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that compare something, with every key there."""
    frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, "data_set", "split", *_KEY])))
    compared: pd.DataFrame = frame[frame["regime"] != "tuning"]
    plain: pd.DataFrame = compared.assign(
        variant=compared["variant"].fillna(""),
        samples=compared["samples"].fillna("positions"),
        # What was 0.1 in a file is to be found as 0.1.
        ratio=pd.to_numeric(compared["ratio"]).astype(float).round(6),
    )
    return plain


def _of(frame: pd.DataFrame, data_set: object, split: object) -> pd.DataFrame:
    mine: pd.DataFrame = frame[(frame["data_set"] == data_set) & (frame["split"] == split)]
    return mine


def _part(data_set: str, split: str, values: pd.DataFrame, summary: pd.DataFrame) -> Part:
    steps = _numbers(values, ["steps"])["steps"].groupby(values["target"]).max()
    counted = frozenset(str(target) for target in steps.index[steps == 0])
    # Ablations are made in a regime that the methods may not have been compared in.
    regimes = {r for of in (values, summary) for r in of.loc[of["variant"] == "", "regime"]}
    regimes = regimes or {*values["regime"], *summary["regime"]}
    first = min(regimes, key=lambda r: (ORDER["regime"] + (r,)).index(r), default="")
    values, summary = _in_one_regime(values, counted, first), _in_one_regime(summary, counted, first)
    found = _from_values(values)
    for key, number in _from_summary(summary):
        more = found.get(key, number)
        found[key] = replace(
            more,
            value=number.value,
            sd=number.sd,
            seeds=number.seeds,
            over_random=number.over_random,
            share_of_all=number.share_of_all,
            over_ours=number.over_ours,
        )
    samples: dict[str, str] = {}
    for target in {key.target for key in found}:
        there = {key.samples for key in found if key.target == target}
        samples[target] = next((s for s in SAMPLES if s in there), min(there))
    return Part(data_set, split, found, counted, first, samples)


def _in_one_regime(frame: pd.DataFrame, counted: Iterable[str], first: str) -> pd.DataFrame:
    """Counted targets in the first regime alone."""
    frame = frame.assign(regime=frame["regime"].mask(frame["target"].isin(list(counted)), first))
    identity = [*_KEY, "seed"] if "seed" in frame.columns else _KEY
    alone: pd.DataFrame = frame.drop_duplicates(identity)
    return alone


_TOOK = ["train_seconds", "prune_seconds", "learned", "n_cases"]


def _from_values(values: pd.DataFrame) -> dict[Key, Found]:
    """Means over seeds, of the metrics and of what the trainings took."""
    if values.empty:
        return {}
    numbers = _numbers(values, ["value", *_TOOK])
    groups = numbers.groupby([values[name] for name in _KEY], sort=False)
    means, seeds, sd = groups.mean(), groups["value"].count(), groups["value"].std()
    return {
        Key(*key): Found(
            Interval(value, math.nan, math.nan),
            deviation,
            int(n),
            cases=cases,
            train_seconds=train,
            prune_seconds=prune,
            learned=learned,
        )
        for key, value, deviation, n, cases, train, prune, learned in zip(
            means.index,
            means["value"],
            sd,
            seeds,
            means["n_cases"],
            means["train_seconds"],
            means["prune_seconds"],
            means["learned"],
            strict=True,
        )
        if n
    }


_SUMMARY = [
    "mean",
    "low",
    "high",
    "over_random",
    "over_random_low",
    "over_random_high",
    "share_of_all",
    "share_low",
    "share_high",
    "over_ours",
    "over_ours_low",
    "over_ours_high",
    "sd",
    "seeds",
]


def _from_summary(summary: pd.DataFrame) -> Iterable[tuple[Key, Found]]:
    numbers = _numbers(summary, _SUMMARY).to_numpy()
    keys = summary[_KEY].itertuples(index=False)
    for key, row in zip(keys, numbers, strict=True):
        line: Sequence[float] = [float(x) for x in row]
        if not math.isnan(line[0]):
            sd, seeds = line[12], 0 if math.isnan(line[13]) else int(line[13])
            value, over_random, share_of_all, over_ours = (Interval(*line[k : k + 3]) for k in (0, 3, 6, 9))
            yield Key(*key), Found(value, sd, seeds, over_random, share_of_all, over_ours=over_ours)


def _numbers(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Columns as floats, NaN for what is not there: a column of nulls comes as objects."""
    numbers: pd.DataFrame = frame.reindex(columns=columns).apply(pd.to_numeric, errors="coerce").astype(float)
    return numbers

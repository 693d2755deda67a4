"""The numbers of one data set and split, found by what they are the numbers of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_args

import pandas as pd

from prune_lib.evaluation.intervals import Interval
from prune_lib.evaluation.settings import Regime, Samples, Target
from prune_lib.settings_fields import Method

__all__ = ["RECALL", "SAMPLES", "Found", "Key", "Part", "parts_of"]

RECALL = "recall@20"
SAMPLES: tuple[str, ...] = get_args(Samples)
# Random first and all the data last, ours beside it: as the tables have them.
_METHODS = ("random", *(m for m in get_args(Method) if m not in ("graph", "random")), "graph", "all")
_ORDER: Mapping[str, tuple[str, ...]] = {
    "method": _METHODS,
    "regime": get_args(Regime),
    "target": get_args(Target),
    "samples": SAMPLES,
}
_NOTHING = Interval(math.nan, math.nan, math.nan)


class Key(NamedTuple):
    """What a number is the number of; names as in the tables."""

    method: str
    variant: str
    ratio: float
    regime: str
    samples: str
    target: str
    band: str
    metric: str


_KEY = list(Key._fields)


@dataclass(frozen=True)
class Found:
    """A metric over the seeds; NaN for what is not known.

    Attributes:
        value: mean and interval.
        sd: standard deviation over the seeds.
        seeds: their number.
        over_random: less random at the same ratio.
        share_of_all: over that of all the data.
        cases: test cases.
        train_seconds: of a training.
        prune_seconds: of the pruning run, at its largest ratio.
        learned: targets learned from.
    """

    value: Interval
    sd: float = math.nan
    seeds: int = 0
    over_random: Interval = _NOTHING
    share_of_all: Interval = _NOTHING
    cases: float = math.nan
    train_seconds: float = math.nan
    prune_seconds: float = math.nan
    learned: float = math.nan

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return self.value.mean


@dataclass(frozen=True)
class Part:
    """A data set and split.

    Attributes:
        data_set: its name.
        split: test or validation.
        found: the numbers.
        run: its row of the runs; empty where there is none.
        counted: targets that count instead of being trained. They have no steps and do the same in every
            regime, and their numbers are those of the first.
        first: the first regime.
        samples: by target, what it learns from in tables that are not about that.
    """

    data_set: str
    split: str
    found: Mapping[Key, Found]
    run: Mapping[str, Any] = field(default_factory=dict)
    counted: frozenset[str] = frozenset()
    first: str = ""
    samples: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name, and the split where it is not the test."""
        return self.data_set if self.split == "test" else f"{self.data_set}, {self.split} split"

    def get(
        self,
        method: str,
        ratio: float,
        regime: str,
        target: str,
        metric: str = RECALL,
        *,
        band: str = "all",
        variant: str = "",
        samples: str | None = None,
    ) -> Found | None:
        """A number, if it is there; `all` has no other ratio than 1, and counted targets one regime."""
        ratio = 1.0 if method == "all" else ratio
        regime = self.first if target in self.counted else regime
        samples = samples or self.samples.get(target, "positions")
        return self.found.get(Key(method, variant, ratio, regime, samples, target, band, metric))

    def mean(self, *args: Any, **named: Any) -> float:
        """The mean of a number that `get` finds; NaN where there is none."""
        found = self.get(*args, **named)
        return found.mean if found else math.nan

    def over_random(
        self, ratio: float, regime: str, target: str, metric: str = RECALL, band: str = "all"
    ) -> Interval:
        """Ours less random; without bounds where nothing but the means is known."""
        mine = self.get("graph", ratio, regime, target, metric, band=band)
        if mine is None or not math.isnan(mine.over_random.mean):
            return mine.over_random if mine else _NOTHING
        random = self.mean("random", ratio, regime, target, metric, band=band)
        return replace(_NOTHING, mean=mine.mean - random)

    def names(self, name: str, **where: Any) -> list[Any]:
        """What a field of the keys can be, in the order of the tables.

        Args:
            name: the field.
            where: values of other fields; a tuple of them: any.
        """
        wanted = {k: v if isinstance(v, tuple) else (v,) for k, v in where.items()}
        names = {
            getattr(key, name)
            for key in self.found
            if all(getattr(key, other) in values for other, values in wanted.items())
        }
        order = _ORDER.get(name, ())
        return sorted(names, key=lambda n: (order.index(n) if n in order else len(order), n))

    def regimes(self) -> list[str]:
        """Regimes in which methods are compared."""
        return self.names("regime", metric=RECALL, band="all", variant="")

    def cells(self, regime: str, metric: str = RECALL, band: str = "all") -> list[tuple[float, str]]:
        """Ratio and target of what is ours in a regime."""
        mine = {"method": "graph", "variant": "", "regime": regime, "metric": metric, "band": band}
        return [
            (ratio, target)
            for ratio in self.names("ratio", **mine)
            for target in self.names("target", **mine, ratio=ratio)
            if self.get("graph", ratio, regime, target, metric, band=band)
        ]


def parts_of(values: pd.DataFrame, summary: pd.DataFrame, runs: pd.DataFrame) -> list[Part]:
    """The data sets and splits of an evaluation's tables; tests first, in the order of the tables.

    Args:
        values: a row for every training, band and metric.
        summary: means over seeds, with intervals.
        runs: a row for every data set and split.
    """
    values, summary = _plain(values), _plain(summary)
    names = dict.fromkeys(
        (row.data_set, row.split)
        for frame in (runs, summary, values)
        for row in frame.reindex(columns=["data_set", "split"]).drop_duplicates().itertuples()
    )
    parts = [
        _part(str(data_set), str(split), *(_of(frame, data_set, split) for frame in (values, summary, runs)))
        for data_set, split in names
    ]
    return sorted((part for part in parts if part.found), key=lambda part: part.split != "test")


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that compare something, with every key there."""
    frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, "data_set", "split", *_KEY])))
    frame = frame[frame["regime"] != "tuning"]
    return frame.assign(
        variant=frame["variant"].fillna(""),
        samples=frame["samples"].fillna("positions"),
        # What was 0.1 in a file is to be found as 0.1.
        ratio=pd.to_numeric(frame["ratio"]).astype(float).round(6),
    )


def _of(frame: pd.DataFrame, data_set: object, split: object) -> pd.DataFrame:
    if frame.empty:
        return frame
    return frame[(frame["data_set"] == data_set) & (frame["split"] == split)]


def _part(
    data_set: str, split: str, values: pd.DataFrame, summary: pd.DataFrame, runs: pd.DataFrame
) -> Part:
    steps = _numbers(values, ["steps"])["steps"].groupby(values["target"]).max()
    counted = frozenset(str(target) for target in steps.index[steps == 0])
    regimes = set(values["regime"]) | set(summary["regime"])
    first = min(regimes, key=lambda r: (_ORDER["regime"] + (r,)).index(r), default="")
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
        )
    run = runs.iloc[-1].to_dict() if len(runs) else {}
    samples: dict[str, str] = {}
    for target in {key.target for key in found}:
        there = {key.samples for key in found if key.target == target}
        samples[target] = next((s for s in SAMPLES if s in there), min(there))
    return Part(data_set, split, found, run, counted, first, samples)


def _in_one_regime(frame: pd.DataFrame, counted: Iterable[str], first: str) -> pd.DataFrame:
    """Counted targets in the first regime alone."""
    frame = frame.assign(regime=frame["regime"].mask(frame["target"].isin(list(counted)), first))
    identity = [*_KEY, "seed"] if "seed" in frame.columns else _KEY
    return frame.drop_duplicates(identity)


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
    "sd",
    "seeds",
]


def _from_summary(summary: pd.DataFrame) -> Iterable[tuple[Key, Found]]:
    numbers = _numbers(summary, _SUMMARY).to_numpy()
    keys = summary[_KEY].itertuples(index=False)
    for key, row in zip(keys, numbers, strict=True):
        line: Sequence[float] = [float(x) for x in row]
        if not math.isnan(line[0]):
            seeds = 0 if math.isnan(line[10]) else int(line[10])
            found = Found(Interval(*line[:3]), line[9], seeds, Interval(*line[3:6]), Interval(*line[6:9]))
            yield Key(*key), found


def _numbers(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Columns as floats, NaN for what is not there: a column of nulls comes as objects."""
    return frame.reindex(columns=columns).apply(pd.to_numeric, errors="coerce").astype(float)

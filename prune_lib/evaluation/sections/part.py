"""The numbers of one data set and split, found by what they are the numbers of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, get_args

from prune_lib.evaluation.intervals import Interval
from prune_lib.evaluation.settings import Regime, Samples, Target
from prune_lib.settings.fields import Method

__all__ = ["NOTHING", "ORDER", "RECALL", "SAMPLES", "Found", "Key", "Part"]

#: The main metric.
RECALL = "recall@20"
#: What neural targets learn from.
SAMPLES: tuple[str, ...] = get_args(Samples)
# Random first and all the data last, ours beside it: as the tables have them.
_METHODS = ("random", *(m for m in get_args(Method) if m not in ("graph", "random")), "graph", "all")
#: Names of keys in the order of the tables.
ORDER: Mapping[str, tuple[str, ...]] = {
    "method": _METHODS,
    "regime": get_args(Regime),
    "target": get_args(Target),
    "samples": SAMPLES,
}
_GROUP = ("variant", "metric", "band", "regime")
#: A number that is not known.
NOTHING = Interval(math.nan, math.nan, math.nan)


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


@dataclass(frozen=True)
class Found:
    """A metric over the seeds; NaN for what is not known.

    Attributes:
        value: mean and interval.
        sd: standard deviation over the seeds.
        seeds: their number.
        over_random: less random at the same ratio.
        over_ours: of an ablation, less the method as it is at the same ratio.
        share_of_all: over that of all the data.
        cases: test cases.
        train_seconds: of a training.
        prune_seconds: of the pruning run, at its largest ratio.
        learned: targets learned from.
    """

    value: Interval
    sd: float = math.nan
    seeds: int = 0
    over_random: Interval = NOTHING
    share_of_all: Interval = NOTHING
    cases: float = math.nan
    train_seconds: float = math.nan
    prune_seconds: float = math.nan
    learned: float = math.nan
    over_ours: Interval = NOTHING

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
        counted: targets that count instead of being trained. They have no steps and do the same in every
            regime, and their numbers are those of the first.
        first: the first regime.
        samples: by target, what it learns from in tables that are not about that.
    """

    data_set: str
    split: str
    found: Mapping[Key, Found]
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
            return mine.over_random if mine else NOTHING
        random = self.mean("random", ratio, regime, target, metric, band=band)
        return replace(NOTHING, mean=mine.mean - random)

    @cached_property
    def _groups(self) -> dict[tuple[str, ...], list[Key]]:
        """Keys by the fields that most questions name: there are tens of thousands, most of ablations."""
        groups: dict[tuple[str, ...], list[Key]] = {}
        for key in self.found:
            groups.setdefault(tuple(getattr(key, name) for name in _GROUP), []).append(key)
        return groups

    def names(self, name: str, **where: Any) -> list[Any]:
        """What a field of the keys can be, in the order of the tables.

        Args:
            name: the field.
            where: values of other fields; a tuple of them: any.
        """
        wanted = {k: v if isinstance(v, tuple) else (v,) for k, v in where.items()}
        fixed = [(i, wanted.pop(field)) for i, field in enumerate(_GROUP) if field in wanted]
        names = {
            getattr(key, name)
            for group, keys in self._groups.items()
            if all(group[i] in values for i, values in fixed)
            for key in keys
            if all(getattr(key, other) in values for other, values in wanted.items())
        }
        order = ORDER.get(name, ())
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

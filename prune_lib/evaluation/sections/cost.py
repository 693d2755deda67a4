"""What pruning and training cost beside training on all the data, in seconds, energy and money."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prune_lib.evaluation.sections.part import Part
from prune_lib.evaluation.sections.text import (
    BLANK,
    compact,
    details,
    join,
    kept,
    percent,
    seconds,
    significant,
    table,
)

__all__ = ["Prices", "cost"]

# A search over hyper-parameters, small as they are, trains so often; the data are pruned once.
_MANY = 10
_JOULES_PER_KWH = 3.6e6
_REGIMES = {"steps": "same steps", "epochs": "same passes"}


@dataclass(frozen=True)
class Prices:
    """What a second of the machine costs; None for what is not known.

    Attributes:
        watts: power that it draws.
        price_per_kwh: of energy; needs the power.
        price_per_hour: of the machine.
    """

    watts: float | None = None
    price_per_kwh: float | None = None
    price_per_hour: float | None = None

    def kwh(self, duration: float) -> float:
        """Energy of so many seconds; NaN where the power is not known.

        >>> Prices(watts=100).kwh(36_000)
        1.0
        """
        return math.nan if self.watts is None else duration * self.watts / _JOULES_PER_KWH

    def money(self, duration: float) -> float:
        """Price of so many seconds, energy and machine together; NaN where no price is known.

        >>> Prices(watts=100, price_per_kwh=0.3, price_per_hour=2).money(36_000)
        20.3
        """
        energy = math.nan if self.price_per_kwh is None else self.kwh(duration) * self.price_per_kwh
        hours = math.nan if self.price_per_hour is None else duration / 3600 * self.price_per_hour
        known = [price for price in (energy, hours) if not math.isnan(price)]
        return sum(known) if known else math.nan


@dataclass(frozen=True)
class _Line:
    """Seconds of a target, or of several, at a ratio, in the regime epochs.

    Attributes:
        ratio: share of the interactions.
        pruning: the pruning run, at its largest ratio.
        training: on what is kept.
        everything: training on all the data.
    """

    ratio: float
    pruning: float
    training: float
    everything: float

    def pays(self, trainings: int) -> bool:
        """Whether pruning once and training so often takes less than training on all the data."""
        return self.pruning + trainings * self.training < trainings * self.everything

    @property
    def pays_from(self) -> str:
        """Number of trainings from which pruning pays."""
        saved = self.everything - self.training
        if math.isnan(saved + self.pruning):
            return BLANK
        return f"{math.floor(self.pruning / saved) + 1:,}" if saved > 0 else "never"


def cost(part: Part, prices: Prices) -> str:
    """Seconds by target and ratio, and from which ratio on pruning pays.

    Args:
        part: the numbers.
        prices: what a second costs.
    """
    regimes = part.regimes()
    cells = [
        cell
        for cell in dict.fromkeys(cell for regime in regimes for cell in part.cells(regime))
        if cell[1] not in part.counted
    ]
    lines: dict[str, list[_Line]] = {}
    for ratio, target in cells:
        line = _line(part, ratio, target)
        if line:
            lines.setdefault(target, []).append(line)
    whole = _seconds_table(part, regimes, cells, prices)
    counted = _counted(part)
    if not whole:
        return counted
    folded = details("every target and ratio", whole)
    learned = _learned(part, regimes, cells)
    return join([_intro(bool(lines), prices), _payback(lines), folded, learned, counted])


def _learned(part: Part, regimes: Sequence[str], cells: Sequence[tuple[float, str]]) -> str:
    """What the same number of steps is in targets: subsets of as many clicks need not teach as many."""
    methods = {"random": "random", "graph": "ours", "all": "all"}
    columns = [(regime, method) for regime in regimes for method in methods]
    rows = []
    for ratio in dict.fromkeys(ratio for ratio, _ in cells):
        lines = [
            [_learned_of(part, method, ratio, regime, target) for regime, method in columns]
            for of, target in cells
            if of == ratio
        ]
        # Of the same targets in every column, or else columns could not be compared.
        whole = [line for line in lines if not any(map(math.isnan, line))]
        if whole:
            means = [sum(column) / len(whole) for column in zip(*whole, strict=True)]
            rows.append([kept(ratio), str(len(whole)), *map(compact, means)])
    names = [f"{_REGIMES.get(regime, regime)}: {methods[method]}" for regime, method in columns]
    shown = table(["kept", "mean of targets", *names], rows, left=1)
    if not shown:
        return ""
    return join(
        [
            "Targets learned from, repeated passes counted. As many steps are not as many of them: a batch "
            "holds sessions of like length, and the last of each length is not full, which tells where there "
            "are few.",
            shown,
        ]
    )


def _learned_of(part: Part, method: str, ratio: float, regime: str, target: str) -> float:
    found = part.get(method, ratio, regime, target)
    return found.learned if found else math.nan


def _counted(part: Part) -> str:
    """A sentence on targets whose training is no cost."""
    took = {
        target: found.train_seconds
        for target in part.names("target", variant="")
        if target in part.counted and (found := part.get("all", 1.0, part.first, target))
    }
    known = [x for x in took.values() if not math.isnan(x)]
    if not known:
        return ""
    return (
        f"Targets that count ({', '.join(took)}) are made in {seconds(max(known))} s at most on all the "
        "data: pruning spares them no time worth the name."
    )


def _intro(passes: bool, prices: Prices) -> str:
    text = (
        "Seconds, means over seeds. Training: one thread's own time, the test not included. Pruning: wall "
        "time of the whole job on all cores, at the largest ratio; smaller budgets are cuts of it and cost "
        "nothing more."
    )
    if passes:
        text += (
            " With the same number of passes a smaller set takes less time: *pays from* is the number of "
            "trainings, after one pruning, from which both together take less than as many on all the data."
        )
    rates = [] if prices.watts is None else [f"{prices.watts:g} W"]
    if rates and prices.price_per_kwh is not None:
        rates.append(f"{prices.price_per_kwh:g} a kWh")
    if prices.price_per_hour is not None:
        rates.append(f"{prices.price_per_hour:g} an hour")
    return text + (
        f" Energy and price are of pruning and training together, at {', '.join(rates)}." if rates else ""
    )


def _line(part: Part, ratio: float, target: str) -> _Line | None:
    mine = part.get("graph", ratio, "epochs", target)
    everything = part.get("all", 1.0, "epochs", target)
    if mine is None or everything is None or math.isnan(mine.train_seconds + everything.train_seconds):
        return None
    return _Line(ratio, mine.prune_seconds, mine.train_seconds, everything.train_seconds)


def _payback(lines: dict[str, list[_Line]]) -> str:
    """The largest ratio at which pruning pays, for each target and for all of them together."""
    rows = [
        [target, _largest(of_target, 1), _largest(of_target, _MANY), seconds(of_target[0].everything)]
        for target, of_target in lines.items()
    ]
    together = _together(lines)
    if together:
        rows.append(
            [
                "all of them, one pruning",
                _largest(together, 1),
                _largest(together, _MANY),
                seconds(together[0].everything),
            ]
        )
    shown = table(
        ["target", "one training", f"{_MANY} trainings", "training on all the data (s)"], rows, left=1
    )
    return join(
        [
            "The largest ratio at which pruning and training take less time than training on all the data:",
            shown,
        ]
        if shown
        else []
    )


def _together(lines: dict[str, list[_Line]]) -> list[_Line]:
    """Targets that are trained on one pruned table; only ratios that all of them have."""
    if len(lines) < 2:
        return []
    by_ratio = [{line.ratio: line for line in of_target} for of_target in lines.values()]
    common = [ratio for ratio in by_ratio[0] if all(ratio in other for other in by_ratio)]
    return [
        _Line(
            ratio,
            max(of[ratio].pruning for of in by_ratio),
            sum(of[ratio].training for of in by_ratio),
            sum(of[ratio].everything for of in by_ratio),
        )
        for ratio in common
    ]


def _largest(lines: Sequence[_Line], trainings: int) -> str:
    return kept(max(found)) if (found := [line.ratio for line in lines if line.pays(trainings)]) else "none"


def _seconds_table(
    part: Part, regimes: Sequence[str], cells: Sequence[tuple[float, str]], prices: Prices
) -> str:
    others = [regime for regime in regimes if regime != "epochs"]
    rows = []
    for target in dict.fromkeys(target for _, target in cells):
        for ratio in [*(ratio for ratio, t in cells if t == target), 1.0]:
            method = "all" if ratio == 1.0 else "graph"
            trained = {
                regime: found.train_seconds if found else math.nan
                for regime in (*others, "epochs")
                for found in [part.get(method, ratio, regime, target)]
            }
            line = _line(part, ratio, target)
            pruning = _pruning(part, ratio, target, regimes)
            total = (
                line.pruning + line.training if line else trained["epochs"] if method == "all" else math.nan
            )
            rows.append(
                [
                    target,
                    kept(ratio),
                    seconds(pruning),
                    seconds(trained["epochs"]),
                    seconds(total),
                    f"{100 * total / line.everything:,.0f}" if line and line.everything else BLANK,
                    line.pays_from if line else BLANK,
                    _recall(part, ratio, target) if line else BLANK,
                    significant(prices.kwh(total)),
                    significant(prices.money(total)),
                    *(seconds(trained[regime]) for regime in others),
                ]
            )
    header = [
        "target",
        "kept",
        "pruning",
        "training, same passes",
        "together",
        "% of all",
        "pays from",
        "Recall@20, % of all",
        "kWh",
        "price",
        *(f"training, {_REGIMES.get(regime, regime)}" for regime in others),
    ]
    return table(header, rows, left=2)


def _pruning(part: Part, ratio: float, target: str, regimes: Sequence[str]) -> float:
    found = [part.get("graph", ratio, regime, target) for regime in regimes]
    return next((f.prune_seconds for f in found if f and not math.isnan(f.prune_seconds)), math.nan)


def _recall(part: Part, ratio: float, target: str) -> str:
    """What is kept of the performance in the regime epochs, beside what is paid."""
    everything = part.mean("all", 1.0, "epochs", target)
    return percent(part.mean("graph", ratio, "epochs", target) / everything) if everything else BLANK

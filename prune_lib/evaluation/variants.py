"""The ablations by name: what each of them changes in the method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prune_lib.errors import SettingsError

__all__ = ["ABLATIONS", "Variant", "check_ablations", "named"]

# So large a weight of target items leaves transitions a thousandth, and one of 0 leaves items nothing.
_ITEMS_ONLY = 1e3
# Ages lie in [0, 1]: with so long a half-life all sessions count alike.
_NO_RECENCY = 1e6


@dataclass(frozen=True)
class Variant:
    """The method with something changed.

    Attributes:
        group: what it is about.
        sampling: settings of the group sampling.
        propagation: settings of the group propagation.
        suspects: settings of the group suspects.
        floor: sessions that every item keeps.
        difficulty: whose score: mixture, uniform, gnn, rnn, transformer (in the gate's place), memory (of
            the experts that were trained on the session), raw (not adjusted for popularity), shuffled; or
            another score of the mixture (el2n, margin, entropy, disagreement).
        unit: session; or prefix: every prefix is a sample of its own, with the patterns that end at its
            target, at a cost of 1, and is chosen or left by itself.
        form: of `forms.FORMS`: another way for difficulty, propagation or the mixture to enter the choice.
        weighted: each kept session is in the data as often as its `prune_weight` says, by chance for what
            is left of it, in as many steps of training.
    """

    group: str
    sampling: Mapping[str, Any] = field(default_factory=dict)
    propagation: Mapping[str, Any] = field(default_factory=dict)
    suspects: Mapping[str, Any] = field(default_factory=dict)
    floor: int = 0
    difficulty: str = "mixture"
    unit: str = "session"
    form: str = ""
    weighted: bool = False


ABLATIONS: dict[str, Variant] = {
    "kappa=-1": Variant("difficulty", {"kappa": -1.0}),
    "kappa=-0.5": Variant("difficulty", {"kappa": -0.5}),
    "kappa=0": Variant("difficulty", {"kappa": 0.0}),
    "kappa=0.5": Variant("difficulty", {"kappa": 0.5}),
    "kappa=1": Variant("difficulty", {"kappa": 1.0}),
    "shuffled": Variant("difficulty", difficulty="shuffled"),
    "raw": Variant("adjustment", difficulty="raw"),
    "el2n": Variant("score", difficulty="el2n"),
    "margin": Variant("score", difficulty="margin"),
    "entropy": Variant("score", difficulty="entropy"),
    "disagreement": Variant("score", difficulty="disagreement"),
    "uniform": Variant("gate", difficulty="uniform"),
    "gnn": Variant("gate", difficulty="gnn"),
    "rnn": Variant("gate", difficulty="rnn"),
    "transformer": Variant("gate", difficulty="transformer"),
    "no-cross-fitting": Variant("cross-fitting", difficulty="memory"),
    "propagation=0": Variant("propagation", propagation={"rounds": 0}),
    "propagation=2": Variant("propagation", propagation={"rounds": 2}),
    "alpha=0.7": Variant("propagation", propagation={"alpha": 0.7}),
    "items-only": Variant("patterns", {"lambda_items": _ITEMS_ONLY}),
    "transitions-only": Variant("patterns", {"lambda_items": 0.0}),
    "distance=1": Variant("patterns", {"max_distance": 1}),
    "distance=5": Variant("patterns", {"max_distance": 5}),
    "forecast-exponent=0.2": Variant("weights", {"forecast_exponent": 0.2}),
    "forecast-exponent=0.6": Variant("weights", {"forecast_exponent": 0.6}),
    "transition-exponent=0.25": Variant("weights", {"transition_exponent": 0.25}),
    "transition-exponent=0.75": Variant("weights", {"transition_exponent": 0.75}),
    "lambda-items=0.5": Variant("weights", {"lambda_items": 0.5}),
    "lambda-items=2": Variant("weights", {"lambda_items": 2.0}),
    "no-recency": Variant("recency", {"half_life": _NO_RECENCY, "demand": "recency"}),
    "half-life=0.1": Variant("recency", {"half_life": 0.1}),
    "half-life=0.5": Variant("recency", {"half_life": 0.5}),
    "floor=1": Variant("floors", floor=1),
    "bots=alike": Variant("suspects", suspects={"bots": "alike"}),
    "noise=alike": Variant("suspects", suspects={"noise": "alike"}),
    "hardest=0.9": Variant("suspects", suspects={"hardest": 0.9}),
    "hardest=0.5": Variant("suspects", suspects={"hardest": 0.5}),
    "suspects=alike": Variant("suspects", suspects={"bots": "alike", "noise": "alike"}),
    "unit=prefix": Variant("unit", unit="prefix"),
    "demand=recency": Variant("demand", {"demand": "recency"}),
    # Coverage alone, as it was before difficulty and demand.
    "demand=recency-kappa=0": Variant("demand", {"demand": "recency", "kappa": 0.0}),
    # Difficulty by click takes the place of difficulty by session.
    "click-weights": Variant("forms", {"kappa": 0.0}, form="click-weights"),
    "click-messages": Variant("forms", {"kappa": 0.0}, form="click-messages"),
    "forecast-items": Variant("forms", form="forecast-items"),
    "forecast-transitions": Variant("forms", form="forecast-transitions"),
    "borrowed-weights": Variant("forms", form="borrowed-weights"),
    "credit": Variant("forms", form="credit"),
    "influence": Variant("forms", form="influence"),
    "against-influence": Variant("forms", form="against-influence"),
    "decision-gate": Variant("forms", form="decision-gate"),
    "held-lengths": Variant("forms", form="held-lengths"),
    "held-repeats": Variant("forms", form="held-repeats"),
    "weighted": Variant("forms", weighted=True),
}


def named(names: Iterable[str]) -> dict[str, Variant]:
    """Variants by name, by the name of their group, or all of them; in the order of ABLATIONS."""
    wanted = set(names)
    return {
        name: variant
        for name, variant in ABLATIONS.items()
        if "all" in wanted or name in wanted or variant.group in wanted
    }


def check_ablations(names: Iterable[str]) -> None:
    """Refuse names that are none.

    Raises:
        SettingsError: with those there are.
    """
    groups = list(dict.fromkeys(variant.group for variant in ABLATIONS.values()))
    unknown = [name for name in names if name not in (*ABLATIONS, *groups, "all")]
    if unknown:
        raise SettingsError(
            f"--ablations: {unknown[0]!r} is no ablation. Give `all`, groups ({', '.join(groups)}) or single "
            f"ones ({', '.join(ABLATIONS)})."
        )

"""How targets were trained: what validation chose, and among what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from prune_lib.evaluation.sections.part import RECALL
from prune_lib.evaluation.sections.text import BLANK, details, join, kept, percent, table

__all__ = ["tuning"]

# Fields of a choice, as the runs have them, and what they are called here.
_FIELDS = {
    "learning_rate": "learning rate",
    "passes": "passes",
    "longest": "passes, best for all the data",
    "shortest": "passes, best for a random tenth",
    "steps": "steps",
}


def tuning(values: pd.DataFrame, runs: pd.DataFrame) -> str:
    """The choices and the candidates of all data sets.

    Args:
        values: a row for every training and metric.
        runs: a row for every run, `chosen` as JSON.
    """
    choices = [
        (str(run["data_set"]), str(run["split"]), target, choice)
        for run in runs.to_dict("records")
        for target, choice in _chosen(run.get("chosen")).items()
    ]
    # Runs of two splits mostly share their choices.
    splits: dict[tuple[str, ...], list[str]] = {}
    for data_set, split, target, choice in choices:
        line = (data_set, target, *(_number(choice.get(name)) for name in _FIELDS))
        splits.setdefault(line, []).append(split)
    rows = [[line[0], ", ".join(dict.fromkeys(of)), *line[1:]] for line, of in splits.items()]
    shown = table(["data set", "results on", "target", *_FIELDS.values()], rows, left=3)
    tried = _candidates(values, choices)
    if not shown and not tried:
        return ""
    intro = "The same for all methods; passes are over all the data."
    if tried:
        intro = (
            "Learning rate and length of training of a neural target are those with the best mean share of "
            "the best Recall@20 on all the data and on a random tenth of the validation split. " + intro
        )
    return join([intro, shown, details("every candidate", tried)])


def _candidates(values: pd.DataFrame, choices: list[tuple[str, str, str, Mapping[str, Any]]]) -> str:
    if values.empty or "regime" not in values.columns:
        return ""
    mine = values[(values["regime"] == "tuning") & (values["metric"] == RECALL) & (values["band"] == "all")]
    if mine.empty:
        return ""
    columns = list(dict.fromkeys((m, r) for m, r in zip(mine["method"], mine["ratio"], strict=True)))
    rows = []
    for (data_set, target, variant), some in mine.groupby(["data_set", "target", "variant"], sort=False):
        means = some.groupby(["method", "ratio"])["value"].mean().to_dict()
        named = {_variant(c) for d, _, t, c in choices if (d, t) == (data_set, target)}
        rows.append(
            [
                str(data_set),
                str(target),
                str(variant),
                "chosen" if variant in named else "",
                *(percent(float(means.get(column, float("nan")))) for column in columns),
            ]
        )
    names = ["Recall@20, all the data" if m == "all" else f"Recall@20, {m} {kept(r)}" for m, r in columns]
    return table(["data set", "target", "candidate", "", *names], rows, left=4)


def _chosen(text: Any) -> dict[str, Mapping[str, Any]]:
    """A run's choices by target; none where there is no JSON."""
    found = json.loads(text) if isinstance(text, str) and text else {}
    return {target: choice for target, choice in found.items() if isinstance(choice, Mapping)}


def _variant(choice: Mapping[str, Any]) -> str:
    """A choice as the candidates are named."""
    passes, steps = choice.get("passes"), choice.get("steps")
    length = f"passes={passes:g}" if passes else f"steps={steps}"
    return f"lr={choice.get('learning_rate', 0.0):g}, {length}"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and value else BLANK

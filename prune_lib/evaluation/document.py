"""The document: results.md and its figures, from the tables of all evaluations so far."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from prune_lib.evaluation.sections.ablation import ablations
from prune_lib.evaluation.sections.augmentation import augmentation
from prune_lib.evaluation.sections.cost import Prices, cost
from prune_lib.evaluation.sections.figures import recall_figure
from prune_lib.evaluation.sections.frames import parts_of
from prune_lib.evaluation.sections.part import Part
from prune_lib.evaluation.sections.quality import (
    REGIMES,
    bands,
    baselines,
    beyond_accuracy,
    other_metrics,
    recall,
)
from prune_lib.evaluation.sections.text import BLANK, details, join, slugs, table
from prune_lib.evaluation.sections.tuning import tuning
from prune_lib.evaluation.sections.verdict import OVERVIEW, overview_row
from prune_lib.settings.job import SAYING

__all__ = ["FINDINGS", "Prices", "write_document"]

#: Written by hand beside the document, taken into it, never written.
FINDINGS = "findings.md"

_INTRO = """\
Recommenders are trained on all sessions, on those that the pruning method keeps (*ours*, in the tables' data
`graph`) and on sessions drawn at random up to the same number of interactions, and are compared on the same
test cases. `jobs/evaluate.py` writes this file from its Delta tables; only `findings.md`, where there is one,
is written by hand."""

_PROTOCOL = """\
- Split as in SR-GNN: the test is later than the training data, every proper prefix of a test session is a
  case, and clicks on items that the training data lack are left out (*unknown clicks*). People do again what
  others did: *test sessions as in training* hold, click by click, what a training session holds.
- No leaks: experts, pruning and targets see training sessions only. The validation split holds out the newest
  of them; learning rates and lengths of training are chosen on it, and the test is only reported.
- Every case ranks all items of the training data, no sampled negatives; an item whose score ties with the
  target's is counted as above it. An item that the kept sessions lack is never recommended: a miss.
- Budgets are in interactions: 10 % kept are a tenth of the clicks, in whole sessions.
- Numbers are in percent, means over seeds; each seed prunes and trains anew. ± is the standard deviation
  over seeds. Brackets are 95 % intervals by bootstrap over test sessions of the seeds' mean, differences and
  shares paired on the sessions; they do not hold the spread of seeds, which is ±.
- ▼ ours is below random; ○ the interval of the difference includes 0."""

_REGIMES = {
    "steps": "as many optimisation steps on every subset as on all the data",
    "epochs": "as many passes over every subset as over all the data: the smaller, the less time",
    "tuned": "as many steps as suit a random subset of that ratio, the same for all methods",
}
# Where things were on the machine that ran it says nothing about the results.
_PLACES = {"input", "test", "output", "document", "workspace", "config", "dry_run", *SAYING}


def write_document(
    values: pd.DataFrame, summary: pd.DataFrame, runs: pd.DataFrame, folder: Path, *, prices: Prices
) -> Path:
    """Write results.md and its figures; sections without data are left out.

    Args:
        values: a row for every training, popularity band and metric.
        summary: means over seeds, with intervals.
        runs: a row for every run.
        folder: where to; a `findings.md` in it becomes a section.
        prices: what a second of the machine costs.

    Returns:
        results.md. The same tables give the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = parts_of(values, summary)
    findings = folder / FINDINGS
    learned = findings.read_text(encoding="utf-8").strip() if findings.is_file() else ""
    regimes = dict.fromkeys(regime for part in parts for regime in part.regimes())
    files = slugs(part.data_set for part in parts)
    blocks = [
        "# What is kept of the performance",
        _INTRO,
        _data(runs),
        _section("## Protocol", _protocol(list(regimes))),
        _section("## How it was run", _commands(runs)),
        _section("## What was learned", learned),
        _section("## At a glance", _overview(parts)),
        *(_part(part, folder, prices, files[part.data_set]) for part in parts),
        _section("## How targets were trained", tuning(values, runs)),
    ]
    file = folder / "results.md"
    file.write_text(join(blocks) + "\n", encoding="utf-8")
    return file


def _section(heading: str, body: str) -> str:
    return join([heading, body]) if body else ""


def _protocol(regimes: Sequence[str]) -> str:
    lines = [f"  - `{regime}`: {_REGIMES[regime]}" for regime in regimes if regime in _REGIMES]
    return "\n".join([_PROTOCOL, "- Lengths of training (regimes):", *lines] if lines else [_PROTOCOL])


def _data(runs: pd.DataFrame) -> str:
    """A line for every data set and split."""
    names = {
        "n_sessions": "sessions",
        "n_items": "items",
        "n_interactions": "interactions",
        "test_sessions": "test sessions",
        "n_cases": "test cases",
        "unknown": "unknown clicks",
        "repeated": "test sessions as in training",
    }
    # Several runs on the same data are one line.
    rows = dict.fromkeys(
        (str(run["data_set"]), str(run["split"]), *(_count(run.get(name)) for name in names))
        for run in runs.to_dict("records")
    )
    return table(["data set", "split", *names.values()], rows, left=2)


def _commands(runs: pd.DataFrame) -> str:
    """The commands, the calls of programs, and folded the settings and the software behind each."""
    commands, calls, behind, warned = list[str](), list[str](), list[str](), list[str]()
    for run in runs.to_dict("records"):
        if not isinstance(run.get("command"), str):
            continue
        name = f"{run['data_set']}, {run['split']} split, run {run['run_id']}"
        warned += [
            f"- {run['data_set']}, {run['split']} split: {text}" for text in _json_list(run.get("warnings"))
        ]
        if run["command"].startswith("prune_lib."):
            calls.append(f"# {name}\n{run['command']}")
        else:
            commands.append(f"# {name}\n{run['command'].replace(' --', _CONTINUED)}")
        known = {**_json(run.get("versions")), **_json(run.get("settings"))}
        lines = [
            f"{key}: {value if isinstance(value, str) else json.dumps(value)}"
            for key, value in known.items()
            if key not in _PLACES and value is not None
        ]
        behind += ["\n".join([f"# {name}", *lines])] if lines else []
    return join(
        [
            _block("bash", commands),
            _block("python", calls),
            join(["Warned of:", "\n".join(dict.fromkeys(warned))]) if warned else "",
            details("settings and software behind each", _block("yaml", behind)),
        ]
    )


def _block(language: str, texts: Sequence[str]) -> str:
    return "\n".join([f"```{language}", "\n\n".join(texts), "```"]) if texts else ""


_CONTINUED = " \\\n  --"


def _overview(parts: Sequence[Part]) -> str:
    rows = [row for part in parts for regime in part.regimes() if (row := overview_row(part, regime))]
    if not rows:
        return ""
    return join(
        [
            "Recall@20 of ours beside random, over the cells ratio × target; *clearly*: the whole interval "
            "is above 0. Every cell below random is named in the sections.",
            table(OVERVIEW, rows, left=2),
        ]
    )


def _part(part: Part, folder: Path, prices: Prices, name: str) -> str:
    """All sections of a data set and split; its files have the data set's name as given."""
    sections: list[tuple[str, str]] = []
    for regime in part.regimes():
        drawn = recall_figure(part, regime, folder, name)
        words = REGIMES.get(regime, regime)
        picture = f"![Recall@20 against the share kept: {part.title}, {words}]({drawn})" if drawn else ""
        sections.append(
            (f"Recall@20, {words}", join([_counted(part, regime), recall(part, regime), picture]))
        )
    sections += [
        ("MRR@20 and NDCG@20", other_metrics(part)),
        ("Cold, mid and popular items", bands(part)),
        ("Beyond accuracy", beyond_accuracy(part)),
        ("Other ways to choose", baselines(part)),
        ("Cost", cost(part, prices)),
        ("Ablations", ablations(part)),
        ("Augmentation", augmentation(part)),
    ]
    notice = "" if part.split == "test" else f"*The {part.split} split: what settings were chosen on.*"
    body = join(_section(f"### {title}", body) for title, body in sections)
    return _section(f"## {part.title}", join([notice, body]) if body else "")


def _counted(part: Part, regime: str) -> str:
    """Where targets without steps are, for readers who look for them in another regime."""
    counted = [t for t in part.names("target") if t in part.counted]
    if not counted or len(part.regimes()) < 2:
        return ""
    if regime == part.first:
        return (
            f"Targets that count ({', '.join(counted)}) take no steps; they are here and in no other regime."
        )
    return ""


def _json(text: Any) -> Mapping[str, Any]:
    found = json.loads(text) if isinstance(text, str) and text else {}
    return found if isinstance(found, Mapping) else {}


def _json_list(text: Any) -> list[str]:
    found = json.loads(text) if isinstance(text, str) and text else []
    return [str(entry) for entry in found] if isinstance(found, list) else []


def _count(value: Any) -> str:
    return BLANK if value is None or pd.isna(value) else f"{int(value):,}"

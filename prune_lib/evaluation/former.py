"""What earlier evaluations found, and how new rows join it.

Results lie in two places, the tables of a workspace and the files beside the document, which travel. One
machine adds to one workspace, another to another, and both to the document: what either lacks is taken from
the other, run by run in the order in which the runs ended, as if all had run on one machine.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import pandas as pd

from prune_lib.evaluation.results import KEYS

__all__ = ["IDENTITY", "asked", "joined", "measured", "merged", "moment_of"]

_LOG = logging.getLogger(__name__)

# What is compared with each other, as all the data are with a tenth of them.
_COMPARED = ["data_set", "split", "regime", "samples", "target"]
#: What names a row of the values.
IDENTITY = ["data_set", "split", *KEYS, "band", "metric", "seed"]
_OF_SUMMARY = ["data_set", "split", *KEYS, "band", "metric"]
# Settings name the split, so that a run is of one.
_RUN = ["data_set", "run_id"]

# A run that no table of runs knows is older than all that one does.
_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)

_Tables = Mapping[str, pd.DataFrame | None]
_Run = tuple[str, str]


def merged(former: pd.DataFrame | None, new: pd.DataFrame, identity: list[str]) -> pd.DataFrame:
    """What was there and what is new, which replaces rows of the same identity and of former data.

    Where both have a `recipe`, the new one replaces all seeds of the same row under another recipe too: what
    two ways of pruning or training gave is no sample of one. And where both have a `training`, it replaces
    all rows of a target that was trained otherwise: a share of what all the data give, trained for longer, is
    no share.

    Args:
        former: rows of earlier evaluations; None where there were none.
        new: rows of this one, of one data set.
        identity: columns that name a row.

    >>> old = pd.DataFrame({"data_set": ["a", "b"], "split": "test", "data_hash": "1", "x": [1, 2]})
    >>> new = pd.DataFrame({"data_set": ["a"], "split": "test", "data_hash": "2", "x": [3]})
    >>> merged(old, new, ["data_set", "split"])["x"].tolist()
    [2, 3]
    """
    if former is None or former.empty:
        return new
    kept = _without_others(former, new, ["data_set", "split"], "data_hash")
    if "training" in new.columns:
        # A table of a former version does not tell, so that nothing of it is known to be trained alike.
        told = kept if "training" in kept.columns else kept.assign(training=None)
        kept = _without_others(told, new, _COMPARED, "training")
    if "recipe" in kept.columns and "recipe" in new.columns:
        kept = _without_others(kept, new, ["data_set", "split", *KEYS], "recipe")
    kept = kept[~_among(kept, new, identity)]
    frame: pd.DataFrame = pd.concat([kept, new], ignore_index=True) if len(kept) else new
    return frame


def _without_others(former: pd.DataFrame, new: pd.DataFrame, key: list[str], mark: str) -> pd.DataFrame:
    """Former rows, but those whose key is among the new ones under another mark."""
    marks = new[[*key, mark]].drop_duplicates(key)
    known = former.merge(marks, on=key, how="left", suffixes=("", "_new"))[f"{mark}_new"]
    stale = known.notna().to_numpy() & (former[mark].to_numpy() != known.to_numpy())
    kept: pd.DataFrame = former[~stale]
    return kept


def _among(frame: pd.DataFrame, others: pd.DataFrame, key: list[str]) -> Any:
    """For each row of a frame, whether others have one of the same key."""
    found = frame[key].merge(others[key].drop_duplicates(), on=key, how="left", indicator=True)
    return (found["_merge"] == "both").to_numpy()


def asked(runs: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Runs of which a row is left: what others have asked for since is theirs."""
    left: pd.DataFrame = runs[_among(runs, values, _RUN)]
    return left


def measured(summary: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Rows of a summary whose values are there: of former data, or of what was dropped, there are none.

    What is tried while lengths are chosen has values on the validation split and no summary.
    """
    of = ["data_set", "split", "data_hash", *KEYS]
    left: pd.DataFrame = summary[_among(summary, values[values["regime"] != "tuning"], of)]
    return left


def moment_of(value: Any) -> datetime:
    """A time with its zone: what comes from a table has none, for it is UTC; Spark takes that for local."""
    moment = pd.Timestamp(value)
    moment = moment.tz_localize(timezone.utc) if moment.tzinfo is None else moment
    told: datetime = moment.to_pydatetime()
    return told


def joined(table: _Tables, beside: _Tables) -> _Tables:
    """What earlier evaluations found, by the tables of a workspace and by the files beside the document.

    Of a run that both have, the younger is taken. Where one place has all runs of the other it is taken as it
    is: what it lacks of their rows was replaced there.

    Args:
        table: values, summary and runs of the workspace; None for what is not there.
        beside: the same of the document.

    Returns:
        The same of both. The summary of a split to which both have added is of the place that did so last,
        and of the other for what only that has, until the split is evaluated again.
    """
    if not _whole(table) or not _whole(beside):
        first, second = (table, beside) if _whole(table) else (beside, table)
        return {kind: second.get(kind) if frame is None else frame for kind, frame in first.items()}
    places = [{kind: frame for kind, frame in of.items() if frame is not None} for of in (table, beside)]
    ends = [_ends(place["runs"]) for place in places]
    for place, mine, others in zip(places, ends, reversed(ends), strict=True):
        if all(run in mine and mine[run] >= end for run, end in others.items()):
            return place
    _LOG.info("results that another machine added beside the document join those of the tables")
    values = _replayed(places, ends)
    summary = pd.concat(
        [place["summary"].assign(ended=_ends_of_splits(place)) for place in places], ignore_index=True
    )
    summary = summary.sort_values("ended", kind="stable").drop_duplicates(_OF_SUMMARY, keep="last")
    runs = pd.concat([place["runs"] for place in places], ignore_index=True)
    runs = runs.assign(ended=[moment_of(value) for value in runs["finished_at"]])
    runs = runs.sort_values("ended", kind="stable").drop_duplicates(_RUN, keep="last")
    return {
        "values": values,
        "summary": measured(summary.drop(columns="ended"), values),
        "runs": asked(runs.drop(columns="ended"), values),
    }


def _whole(place: _Tables) -> bool:
    """Whether there is something of each kind."""
    frames = [place.get(kind) for kind in ("values", "summary", "runs")]
    return all(frame is not None and len(frame) > 0 for frame in frames)


def _ends(runs: pd.DataFrame) -> dict[_Run, datetime]:
    """When each run ended."""
    names = zip(runs["data_set"], runs["run_id"], strict=True)
    return dict(zip(names, map(moment_of, runs["finished_at"]), strict=True))


def _ends_of_splits(place: Mapping[str, pd.DataFrame]) -> list[datetime]:
    """For each row of a summary, when the last run of its data set and split ended."""
    last: dict[tuple[str, str], datetime] = {}
    for run in place["runs"].to_dict("records"):
        of, end = (run["data_set"], run["split"]), moment_of(run["finished_at"])
        last[of] = max(end, last.get(of, end))
    rows = zip(place["summary"]["data_set"], place["summary"]["split"], strict=True)
    return [last.get(of, _LONG_AGO) for of in rows]


def _replayed(
    places: Sequence[Mapping[str, pd.DataFrame]], ends: Sequence[Mapping[_Run, datetime]]
) -> pd.DataFrame:
    """Values as if all runs had been of one place, one after the other."""
    parts = [
        {(str(run[0]), str(run[1])): rows for run, rows in place["values"].groupby(_RUN, sort=False)}
        for place in places
    ]
    youngest: dict[_Run, tuple[datetime, int]] = {}
    for number, (of_runs, ended) in enumerate(zip(parts, ends, strict=True)):
        for run in of_runs:
            end = ended.get(run, _LONG_AGO)
            if run not in youngest or end > youngest[run][0]:
                youngest[run] = (end, number)
    values: pd.DataFrame | None = None
    for run, (_, number) in sorted(youngest.items(), key=lambda known: known[1]):
        values = merged(values, parts[number][run], IDENTITY)
    assert values is not None
    return values

"""Where results go: Delta tables that accumulate over data sets, MLflow, the document."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pyspark.sql import SparkSession

from prune_lib.delta import replace_table, table_version
from prune_lib.errors import OutputError
from prune_lib.evaluation.beside import read_beside, write_beside
from prune_lib.evaluation.cells import export_cells
from prune_lib.evaluation.document import Prices, write_document
from prune_lib.evaluation.files import Split
from prune_lib.evaluation.former import IDENTITY, asked, joined, measured, merged, moment_of
from prune_lib.evaluation.plan import Candidate, Plan, Row
from prune_lib.evaluation.results import KEYS, metric_rows, summarise
from prune_lib.evaluation.schemas import COMMENTS, EVALUATION, SUMMARY
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.experts.settings import WHERE
from prune_lib.locations import is_location, named
from prune_lib.schemas import OutColumn
from prune_lib.settings.job import SAYING
from prune_lib.tables import read_table
from prune_lib.tracking import tracked_run

if TYPE_CHECKING:
    from prune_lib.evaluation.job import Evaluation

__all__ = ["Findings", "cells_file", "check_places", "place_of", "write_results"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Findings:
    """What an evaluation says at its end.

    Attributes:
        text: for people.
        found: for machines: the tables, the document and the rows of the summary; empty after a dry run.
    """

    text: str
    found: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> pd.DataFrame:
        """The summary table (`schemas.SUMMARY`) of this data set and split; empty after a dry run."""
        rows: pd.DataFrame = pd.DataFrame(self.found.get("summary", []), columns=[c.name for c in SUMMARY])
        return rows

    @property
    def document(self) -> Path | None:
        """The report in Markdown; None after a dry run."""
        return Path(self.found["document"]) if self.found else None

    def __str__(self) -> str:
        """The text for people."""
        return self.text

    def record(self) -> dict[str, Any]:
        """What --json says."""
        if not self.found:
            return {"dry_run": True, "plan": self.text.splitlines()}
        return {"dry_run": False, **self.found}


def write_results(
    run: Evaluation,
    split: Split,
    plan: Plan,
    tuned: tuple[Split, Sequence[Row]] | None,
    how: Mapping[str, Candidate],
    seconds: float,
) -> Findings:
    """Write the tables, the document and the MLflow runs of an evaluation whose cells are done.

    Args:
        run: the evaluation.
        split: what was evaluated.
        plan: its rows.
        tuned: the validation split and its rows, where something was chosen on it.
        how: how each neural target was trained.
        seconds: of the whole run.
    """
    settings = run.settings
    new = _values(run, split, plan.rows)
    if tuned is not None:
        new = pd.concat([new, _values(run, *tuned)], ignore_index=True)
    export_cells(run.store, sorted(set(new["cell"])), cells_file(settings))
    folder = Path(settings.resolved_document)
    former = joined(
        {kind: _in_table(run.spark, place_of(settings, kind)) for kind in EVALUATION},
        {kind: read_beside(folder, kind) for kind in EVALUATION},
    )
    values = merged(former["values"], new, IDENTITY)
    _warn_of_former(run, former["values"], values)
    # Of this split all that is known, of this command and of those before it.
    here = _of(values, run, split)
    summary = summarise(
        here[here["cell"].isin(run.store.names())],
        run.store,
        split.cases(),
        split.item_sessions(),
        _common(run, split),
        _of(former["summary"], run, split),
    )
    record = pd.DataFrame([_run_row(run, split, how, seconds)])
    frames = {
        "values": values,
        "summary": measured(merged(former["summary"], summary, ["data_set", "split"]), values),
        "runs": asked(merged(former["runs"], record, ["data_set", "split", "run_id"]), values),
    }
    for kind, frame in frames.items():
        _replace(run.spark, frame, kind, place_of(settings, kind))
    write_beside(frames, folder)
    document = write_document(
        frames["values"],
        frames["summary"],
        frames["runs"],
        folder,
        prices=Prices(settings.watts, settings.price_per_kwh, settings.price_per_hour),
    )
    mine = new[["data_set", "split", *KEYS]].drop_duplicates()
    _track(settings, summary.merge(mine), how, document, seconds)
    found = {
        "tables": {kind: place_of(settings, kind) for kind in EVALUATION},
        "document": str(document),
        "summary": summary.to_dict("records"),
        "warnings": list(run.stages.warnings),
    }
    return Findings(_in_words(settings, summary, document), found)


def check_places(spark: SparkSession, settings: EvaluateSettings) -> None:
    """Refuse, before anything runs, somebody else's table as output, or a report without a place.

    Raises:
        OutputError: there is a table that no evaluation wrote, or the report's folder cannot be written.
    """
    _check_folder(Path(settings.resolved_document))
    for kind, columns in EVALUATION.items():
        place = place_of(settings, kind)
        if table_version(spark, place) is None:
            continue
        there = read_table(spark, place).columns
        missing = [c.name for c in columns if c.required and c.name not in there]
        if missing:
            raise OutputError(
                f"The table {place} is there and no evaluation wrote it: it lacks {', '.join(missing[:3])}. "
                "Name another table by --output."
            )


def _check_folder(folder: Path) -> None:
    """See that a folder can be made and written; makes none.

    Raises:
        OutputError: it cannot.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    why = "is a file" if there.exists() and not there.is_dir() else "cannot be written"
    raise OutputError(
        f"The report and the finished trainings go to the folder {folder}, and {there} {why}. Name another "
        "by --document."
    )


def place_of(settings: EvaluateSettings, kind: str) -> str:
    """Name or location of one of the evaluation's tables."""
    suffix = "" if kind == "values" else f"_{kind}"
    output = settings.resolved_output
    output = named(output) if is_location(output) else output
    return output[:-1] + suffix + "`" if output.endswith("`") else output + suffix


def _warn_of_former(run: Evaluation, former: pd.DataFrame | None, values: pd.DataFrame) -> None:
    """Say which rows of former evaluations are gone, and not for newer ones of the same."""
    if former is None:
        return
    name = ["data_set", "split", *KEYS]
    lost = former[name].drop_duplicates().merge(values[name].drop_duplicates(), how="left", indicator=True)
    lost = lost[(lost["_merge"] == "left_only") & (lost["regime"] != "tuning")]
    if len(lost):
        run.stages.warn(
            f"{len(lost):,} results of former evaluations ({', '.join(sorted(set(lost['target'])))}) are out "
            "of the tables: they were of other data, or of targets that were trained otherwise, and are no "
            "comparison for what is in them now. Finished trainings are kept: the former command brings its "
            "results back in minutes."
        )


def _of(frame: pd.DataFrame | None, run: Evaluation, split: Split) -> pd.DataFrame:
    """Rows of a split of a data set; none of no table."""
    wanted = _common(run, split)
    if frame is None:
        frame = pd.DataFrame(columns=list(wanted))
    mine: pd.DataFrame = frame[(frame[list(wanted)] == list(wanted.values())).all(axis=1)]
    return mine


def cells_file(settings: EvaluateSettings) -> Path:
    """Parquet file of a data set's finished cells, beside the document."""
    return Path(settings.resolved_document) / "cells" / f"{settings.data_set}.parquet"


def _values(run: Evaluation, split: Split, rows: Sequence[Row]) -> pd.DataFrame:
    common = {**_common(run, split), "run_id": _run_id(run.settings)}
    return metric_rows(rows, run.store, split.cases(), split.item_sessions(), common)


def _common(run: Evaluation, split: Split) -> dict[str, Any]:
    # What is measured is of both: another test is other data.
    data = f"{split.data_hash}/{split.cases_hash}"
    return {"data_set": run.settings.data_set, "split": split.name, "data_hash": data}


# Where things lie and how much is said decides no number.
_NO_MATTER = {"output", "document", "workspace", "config", "dry_run", "processes", *SAYING}


def _run_id(settings: EvaluateSettings) -> str:
    """A hash of the settings that decide the results, and of what they are reported as."""
    no_matter: Any = {**dict.fromkeys(_NO_MATTER, True), "training": set(WHERE)}
    told = settings.model_dump(mode="json", exclude=no_matter)
    text = json.dumps(told, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _run_row(run: Evaluation, split: Split, how: Mapping[str, Candidate], seconds: float) -> dict[str, Any]:
    counts = ("n_sessions", "n_items", "n_interactions", "test_sessions", "n_cases", "unknown", "repeated")
    return {
        **_common(run, split),
        "run_id": _run_id(run.settings),
        **{name: getattr(split, name) for name in counts},
        "settings": run.settings.settings_json(),
        "chosen": json.dumps({target: asdict(choice) for target, choice in sorted(how.items())}),
        "command": run.command,
        "seconds": round(seconds, 1),
        "finished_at": datetime.now(timezone.utc),
        "warnings": json.dumps(run.stages.warnings),
        "versions": json.dumps(_versions()),
    }


def _versions() -> dict[str, str]:
    found = {"cpus": str(os.cpu_count())}
    for name in ("prune-lib", "torch", "numpy", "pyspark", "ir-measures"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _in_table(spark: SparkSession, place: str) -> pd.DataFrame | None:
    """A table of the workspace; None where there is none."""
    if table_version(spark, place) is None:
        return None
    frame: pd.DataFrame = read_table(spark, place).toPandas()
    return frame


def _replace(spark: SparkSession, frame: pd.DataFrame, kind: str, place: str) -> None:
    from pyspark.sql import functions as F

    columns = EVALUATION[kind]
    given = frame.reindex(columns=[c.name for c in columns])
    # NaN is a number to Spark; a value that is not there is NULL.
    rows = given.astype(object).where(given.notna(), None)
    schema = ", ".join(f"`{c.name}` {c.type}" for c in columns)
    typed = spark.createDataFrame(_native(rows, columns), schema)
    named = [F.col(c.name).alias(c.name, metadata={"comment": c.comment}) for c in columns]
    replace_table(spark, typed.coalesce(1).select(*named), place, COMMENTS[kind])


_NATIVE: Mapping[str, Callable[[Any], Any]] = {
    "string": str,
    "bigint": int,
    "double": float,
    "timestamp": moment_of,
}


def _native(rows: pd.DataFrame, columns: Sequence[OutColumn]) -> list[tuple[Any, ...]]:
    """Rows in Python's own types: Spark takes no numpy numbers."""
    return [
        tuple(
            value if value is None or c.type not in _NATIVE else _NATIVE[c.type](value)
            for value, c in zip(row, columns, strict=True)
        )
        for row in rows.itertuples(index=False)
    ]


def _track(
    settings: EvaluateSettings,
    summary: pd.DataFrame,
    how: Mapping[str, Candidate],
    document: Path,
    seconds: float,
) -> None:
    """One MLflow run for each method, variant, ratio and regime: metrics by target; the document with all.

    Of what this command asked for: the commands before have runs of their own.
    """
    name = f"evaluate {settings.data_set}"
    common = {"data_set": settings.data_set, "split": settings.split}
    groups = summary.groupby(["method", "variant", "ratio", "regime", "samples"], sort=False)
    for key, group in groups:
        named = dict(zip(("method", "variant", "ratio", "regime", "samples"), key, strict=True))
        title = " ".join(str(v) for v in key if v != "")
        params = {**common, **named, "seeds": _from_to(group["seeds"])}
        with tracked_run(settings.workspace, name, title, params) as tracker:
            lines = zip(group["target"], group["band"], group["metric"], group["mean"], strict=True)
            tracker.metrics({f"{t}/{_metric_name(band, m)}": float(mean) for t, band, m, mean in lines})
    chosen = {target: asdict(choice) for target, choice in how.items()}
    asked: dict[str, Any] = {**common, "seeds": settings.seeds, "chosen": chosen}
    with tracked_run(settings.workspace, name, "results", asked) as tracker:
        tracker.metrics({"seconds": seconds})
        tracker.artifact(document)
        for figure in sorted(document.parent.glob("*.svg")):
            tracker.artifact(figure)


def _metric_name(band: str, metric: str) -> str:
    name = metric.replace("@", "_at_")
    return name if band == "all" else f"{band}_{name}"


def _from_to(seeds: pd.Series) -> str:
    """Numbers of seeds: rows of commands before may have more of them, or fewer.

    >>> _from_to(pd.Series([3, 3])), _from_to(pd.Series([3, 1, 2]))
    ('3', '1 to 3')
    """
    low, high = int(seeds.min()), int(seeds.max())
    return str(low) if low == high else f"{low} to {high}"


def _in_words(settings: EvaluateSettings, summary: pd.DataFrame, document: Path) -> str:
    """Recall@20 of every method beside random and all the data, and where to look further."""
    found = summary[
        (summary["metric"] == "recall@20") & (summary["band"] == "all") & (summary["variant"] == "")
    ]
    lines = [f"Evaluated {settings.data_set} ({settings.split}): Recall@20 in percent", ""]
    for (regime, samples), part in found.groupby(["regime", "samples"], sort=False):
        wide = part.assign(
            column=[
                m if m == "all" else f"{m} {100 * r:g} %"
                for m, r in zip(part["method"], part["ratio"], strict=True)
            ]
        )
        order = wide.sort_values(["ratio", "method"], ascending=[False, True])["column"].unique()
        table = wide.pivot_table(index="target", columns="column", values="mean", sort=False)[list(order)]
        seeds = _from_to(part["seeds"])
        what = f"regime {regime}, samples {samples}, mean of {seeds} seed{'' if seeds == '1' else 's'}"
        lines += [what, (100 * table).round(1).to_string(), ""]
    lines += [
        f"tables: {place_of(settings, 'values')}, with _summary and _runs",
        f"report: {document}",
    ]
    return "\n".join(lines)

"""`Pruned`: what a run kept, as frames, with its summary, its explanations and its smaller budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.errors import SettingsError
from prune_lib.lookup import Versions
from prune_lib.notebook import table_of
from prune_lib.ordering import with_running_total
from prune_lib.pages import Explanation, explain_settings
from prune_lib.pinned import pinned, run_row_of, versions_of
from prune_lib.session import check_runtime, get_spark, ship_package
from prune_lib.settings.explain import ExplainSettings
from prune_lib.settings.keywords import as_arguments
from prune_lib.settings.report import MAP_POINTS, report_place
from prune_lib.settings.sources import of_call
from prune_lib.summary import Summary, described, tables_of, used_of, window_of
from prune_lib.wording import allowed, shown

if TYPE_CHECKING:
    from prune_lib.report.job import Report

__all__ = ["Pruned"]


@dataclass(frozen=True, repr=False, eq=False)
class Pruned:
    """The result of a pruning run.

    Its frames are the run's own, at the Delta versions that it wrote: a later run to the same output does not
    change them. They can be read as long as the tables keep that version (VACUUM removes old ones, by default
    after a week).

    Attributes:
        spark: the session that reads them.
        output: the pruned table; its companions lie beside it.
        run: the run's row of the runs table: settings, counts, seconds, warnings; empty after a dry run.
        versions: Delta versions of the tables `pruned`, `decisions`, `items` and `runs`.

    Examples:
        >>> pruned = Pruned.open(output)                               # tables of an earlier run
        >>> pruned.ratio
        0.2
        >>> pruned.sessions.count() == pruned.run["sessions_after"]
        True
        >>> first = pruned.at(rank=10)                                 # a smaller budget, by rank
        >>> first.count()
        10
        >>> curve = pruned.curve()                                     # what any smaller budget keeps
        >>> bool(curve["items"].is_monotonic_increasing)
        True
        >>> dropped = pruned.decisions.filter("NOT kept").first()
        >>> page = pruned.explain(dropped["session_id"])
        >>> print(str(page).splitlines()[0])
        Session ... was pruned.
    """

    spark: SparkSession
    output: str
    run: Mapping[str, Any]
    versions: Versions
    _summary: Summary | None = field(default=None)

    @classmethod
    def open(
        cls, output: str | PathLike[str], *, run_id: str | None = None, spark: SparkSession | None = None
    ) -> Pruned:
        """Open the tables of an earlier run.

        Args:
            output: the pruned table, a name or a location.
            run_id: one of the runs that wrote it; None for the last.
            spark: the session to use; None takes the running one or builds one.

        Raises:
            InputError: there are no such tables, or no such run in their history.
        """
        place = str(output)
        spark = spark or get_spark("prune")
        check_runtime(spark, only_reads=True)
        ship_package(spark)
        run_id, versions = versions_of(spark, place, run_id)
        runs = pinned(spark, tables_of(place)["runs"], versions["runs"])
        return cls(spark, place, described(run_row_of(spark, runs, run_id)), versions)

    @classmethod
    def of(cls, spark: SparkSession, summary: Summary) -> Pruned:
        """The result of a run that has just ended, or the plan of a dry one."""
        if not summary.run:
            return cls(spark, "", {}, {}, summary)
        _, versions = versions_of(spark, summary.output, summary.run["run_id"])
        return cls(spark, summary.output, described(summary.run), versions, summary)

    @property
    def sessions(self) -> DataFrame:
        """The kept rows of the input, all their columns, with `prune_rank`, `prune_reason` and so on."""
        return self._frame("pruned")

    @property
    def decisions(self) -> DataFrame:
        """A row for every session of the input, kept or not, and why."""
        return self._frame("decisions")

    @property
    def items(self) -> DataFrame:
        """A row for every item of the input, before and after."""
        return self._frame("items")

    @property
    def runs(self) -> DataFrame:
        """A row for every run to this output, up to this one."""
        return self._frame("runs")

    @property
    def ratio(self) -> float:
        """The share of the data that was asked for."""
        return float(self._done()["ratio"])

    def summary(self) -> Summary:
        """What the job prints: counts, reasons, seconds, where the tables are."""
        return self._summary or Summary.of(self.run, self.output)

    def explain(
        self,
        session: str | int | None = None,
        *,
        item: str | int | None = None,
        length: int | None = None,
        lines: int = 20,
    ) -> Explanation:
        """Say why a session was kept or pruned, or what became of an item.

        Args:
            session: id of a session of the input.
            item: id of an item.
            length: clicks of one of the session's samples, where samples were chosen.
            lines: lines of a list, at most.

        Returns:
            A page, printable, with the facts in it.

        Raises:
            UserError: nothing was asked for, there is no such session or item, or the tables are gone.
        """
        asked = {"session": session, "item": item, "length": length, "lines": lines, "output": self.output}
        _ = self.decisions  # whose message is clearer than that of a query on files that are gone
        with as_arguments(ExplainSettings):
            return explain_settings(of_call(ExplainSettings, asked), self.spark, self.versions)

    def at(self, ratio: float | None = None, *, rank: int | None = None) -> DataFrame:
        """The kept rows of a smaller budget, without another run: the first by rank.

        They are what a run of that budget would keep, but that it would pass over a session which is longer
        than its whole budget (`ccs`, `item-quota` and `d2` also order the others as if it were not there),
        and but for `dual`, whose order is another at every ratio. `prune_weight` stays that of the whole run.

        Args:
            ratio: share of the input to keep, counted as the run did; at most its own.
            rank: how many sessions (samples) to keep.

        Returns:
            Rows of `sessions`. Cost for a ratio of interactions: a sort of the kept sessions.

        Raises:
            SettingsError: neither or both are given, or the run kept less.
        """
        if (ratio is None) == (rank is None):
            raise SettingsError("`at` needs a ratio or a rank: at(0.05), or at(rank=1000).")
        if ratio is not None:
            rank = self._rank_of(ratio)
        if rank is None or rank < 1:
            raise SettingsError(f"`rank` must be 1 or more; got {rank}.")
        if rank > (kept := int(self._done()["sessions_after"])):
            raise SettingsError(f"`rank` must be {kept:,} or less, what this run kept; got {rank:,}.")
        return self.sessions.filter(F.col("prune_rank") <= int(rank))

    def _rank_of(self, ratio: float) -> int:
        """The last rank within the budget of a smaller ratio."""
        run = self._done()
        if not 0 < ratio <= run["ratio"]:
            raise SettingsError(
                f"`ratio` must be in (0, {run['ratio']:g}], what this run kept; got {ratio:g}. Prune again "
                "for more."
            )
        budget = allowed(ratio, used_of(run)[2])
        if run["budget"] != "interactions":
            last: int | None = budget
        else:
            kept = self.decisions.filter("kept").select("rank", "interactions")
            running = with_running_total(kept, ["rank"], "interactions", "running")
            row = running.filter(F.col("running") <= budget).agg(F.max("rank")).first()
            last = None if row is None else row[0]
        if not last:
            raise SettingsError(
                f"`ratio` {ratio:g} keeps nothing: the budget is {budget:,} {run['budget']}, less than the "
                "first session costs. Give a larger one."
            )
        return last

    def curve(self) -> pd.DataFrame:
        """What every smaller budget would have kept, from the nested ranks: a row a budget, 200 at most.

        Returns:
            ratio (share of the data kept, counted as the run did), rank (the last kept, for `at(rank=...)`),
            sessions, interactions, items, popular, mid and cold (items of the band), objective (share of
            the largest; NaN where a baseline knows none), difficulty (mean; NaN where there is none). Each
            row is exact, but for `dual`, which orders anew at every ratio. Cost: two aggregates of the kept
            decisions, and a join of the items with them.
        """
        from prune_lib.report.tables import curve

        run = self._done()
        found = curve(self.decisions, self.items, float(run["objective"] or 0.0))
        counted = "interactions" if run["budget"] == "interactions" else "sessions"
        found.insert(0, "ratio", found[counted] / used_of(run)[2])
        return found

    def report(self, path: str | PathLike[str] | None = None, *, map_points: int = MAP_POINTS) -> Report:
        """Write the run's report: one HTML page that needs nothing else.

        Args:
            path: the file; by default beside the tables, <output>_report.html, and of a run that is not the
                last <output>_report_<run_id>.html.
            map_points: points of the map of sessions, at most; 0 for none, which is quicker by far.

        Returns:
            Where it is, printable.

        Raises:
            OutputError: the file cannot be written.
        """
        # Its charts and template need packages that pruning does not.
        from prune_lib.report.job import write_report

        run = self._done()
        settings = run["settings"]
        if path is None and versions_of(self.spark, self.output, None)[0] != run["run_id"]:
            of_last = report_place(self.output, settings["workspace"])
            path = of_last.with_name(f"{of_last.stem}_{run['run_id']}{of_last.suffix}")
        return write_report(
            self.spark,
            self.output,
            path=path,
            workspace=settings["workspace"],
            map_points=map_points,
            versions=self.versions,
        )

    def __str__(self) -> str:
        """The summary."""
        return str(self.summary())

    def __repr__(self) -> str:
        """Two lines: how much of what, and where."""
        if not self.run:
            return "Pruned: a dry run, no tables (print it for the plan)"
        run = self.run
        used, budget, _ = used_of(run)
        units = "samples" if run.get("unit") == "prefix" else "sessions"
        return (
            f"Pruned {shown(run['input'])}{window_of(run)}: "
            f"{run['sessions_after']:,} of {run['sessions_before']:,} {units}, "
            f"{used:,} of the budget of {budget:,} {run['budget']}\n"
            f"  in {shown(self.output)} (run {run['run_id']}, method {run['method']})"
        )

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        return table_of(self.run, self.output) if self.run else ""

    def _frame(self, kind: str) -> DataFrame:
        self._done()
        return pinned(self.spark, tables_of(self.output)[kind], self.versions[kind])

    def _done(self) -> Mapping[str, Any]:
        """The run, if there was one."""
        if not self.run:
            raise SettingsError("a dry run writes no tables: leave out `dry_run`.")
        return self.run

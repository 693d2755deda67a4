"""What can be set about an ingest: the model of its YAML file, environment and flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from prune_lib.locations import table_in_workspace
from prune_lib.settings.fields import Distinct, ItemColumn, OrderColumn, SessionColumn, TimeColumn
from prune_lib.settings.job import JobSettings, JobText
from prune_lib.settings.rules import ingest_rules

__all__ = ["IngestSettings"]


def _tab(value: object) -> object:
    """A tab, as it is written where none can be typed: by two letters."""
    return "\t" if value == "\\t" else value


class IngestSettings(JobSettings):
    """Settings of an ingest; frozen, unknown keys are refused."""

    job: ClassVar[JobText] = JobText(
        name="ingest",
        usage="spark-submit jobs/ingest.py --input LOGS [flags], or: ingest-clicks --input LOGS [flags]",
        description="Bring a click log into a clean table of sessions; rows that are none go to quarantine.",
        script="jobs/ingest.py",
        listing="conf/ingest.yaml",
        example=("input", "/logs/clicks.csv.gz"),
        headings={
            "input": "what is read, and where it goes",
            "session_column": "columns of the input",
            "gap_minutes": "sessions",
            "protocol": "as the field prepares its data",
            "rule": "rules",
            "config": "the run",
        },
        interrupted="The tables are written at the end, all or none.",
    )

    input: str = Field(
        min_length=1,
        description="Click log, a row a click or a session: a file, a folder, a pattern of files (in "
        "quotes), or a table's name or location; CSV with any delimiter, JSON lines, Parquet, Delta; text "
        "may be gzipped.",
    )
    output: str | None = Field(
        default=None,
        min_length=1,
        description="Table of sessions, a name or a location; beside it `_quarantine`, `_ingests` and "
        "`_inputs`. "
        "Default: the workspace's `sessions`, which is what the other jobs read.",
    )
    append: bool = Field(
        default=False,
        description="Take only what is new since the last run, and leave the sessions that are there: files "
        "that were not read yet, rows that a table gained.",
    )
    late_hours: float = Field(
        default=24.0,
        ge=0,
        description="With --append, of a table without a change feed: clicks from so many hours before the "
        "newest session on are looked at again; those that are there already are doubles.",
    )
    form: str | None = Field(
        default=None,
        min_length=1,
        description="A public data set's form: 30music, amazon, diginetica, movielens, nowplaying, otto, "
        "rees46, retailrocket, tmall, trivago, yoochoose; or a YAML file of your own. Default: found by the "
        "names of the columns.",
    )
    format: Literal["auto", "csv", "jsonl", "parquet", "delta"] = Field(
        default="auto", description="Format of the input; auto: by the endings of its files."
    )
    delimiter: Annotated[str | None, BeforeValidator(_tab)] = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="Between the fields of a line. Default: the commonest of comma, tab, semicolon and bar "
        "in the first.",
    )
    multi_line: bool = Field(
        default=False,
        description="A quoted field of CSV may hold line breaks; each file is then put in order in one task.",
    )
    list_delimiter: Annotated[str | None, BeforeValidator(_tab)] = Field(
        default=None,
        min_length=1,
        description="A row of CSV, or of a table with texts, is a session, and this stands between its items "
        "(and times): ' ' or '|'.",
    )

    session_column: SessionColumn = None
    user_column: str | None = Field(
        default=None,
        min_length=1,
        description="Column of the user, where there is no session: sessions are cut by inactivity. Default: "
        "found.",
    )
    item_column: ItemColumn = None
    time_column: TimeColumn = None
    order_column: OrderColumn = None
    kind_column: str | None = Field(
        default=None, min_length=1, description="Column of what a click is (view, cart); default: found."
    )

    keep: Distinct[str] = Field(
        default=(),
        description="Further columns to be kept, as arrays beside the items, such as price,category; all: "
        "every one.",
    )

    gap_minutes: float | None = Field(
        default=None,
        gt=0,
        description="A new session begins after so many minutes without a click. Default: 30 for users, none "
        "where there is a column of sessions.",
    )
    max_hours: float | None = Field(
        default=None, gt=0, description="A session is cut after so many hours, from its first click."
    )
    kinds: Distinct[str] = Field(
        default=(),
        description="Kinds of clicks that are taken, such as view,cart. Default: all, or those of the form.",
    )

    protocol: Literal["none", "srgnn", "session-rec"] = Field(
        default="none",
        description="The steps by which the field prepares a data set, in its order: min-length 2, "
        "min-support 5, test-days 7 (of yoochoose and tmall 1), each of which can be given another value.",
    )
    collapse_repeats: bool = Field(
        default=False, description="Leave out a click on the item of the click before."
    )
    min_length: int | None = Field(
        default=None, ge=1, description="Clicks of a session, at least. Default: 1, or as --protocol has it."
    )
    min_support: int | None = Field(
        default=None, ge=1, description="Clicks of an item, at least. Default: 1, or as --protocol has it."
    )
    test_days: float | None = Field(
        default=None,
        gt=0,
        description="Sessions that end in so many last days go to the table `_test` beside the output, less "
        "items that the others lack. Default: none, or as --protocol has it.",
    )

    rule: Distinct[str] = Field(
        default=(),
        description="What becomes of rows that break a rule, rule:severity, such as duplicate:warn. "
        "Severities: quarantine, drop, warn (the row is taken), fail. docs/ingest.md lists the rules.",
    )
    max_bad: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of the rows that may go to quarantine; beyond, the run fails and writes nothing.",
    )
    max_id_length: int = Field(default=256, ge=1, description="Characters of an id, at most.")
    latest: str | None = Field(
        default=None,
        min_length=1,
        description="No click is later than this time (UTC), such as 2026-11-01. Default: a day from now.",
    )
    max_clicks: int = Field(
        default=5000, ge=1, description="Clicks of a session, at most; a session with more is a bot's."
    )
    max_rate: float = Field(
        default=4.0, gt=0, description="Clicks a second, at most, of sessions with a hundred clicks and more."
    )

    @classmethod
    def problems(cls, values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
        """Names that are none, times that are none, rules that are none."""
        return ingest_rules(values, origin)

    @property
    def resolved_output(self) -> str:
        """The table of sessions: what was given, or the workspace's `sessions`."""
        return self.output or table_in_workspace(self.workspace, "sessions")

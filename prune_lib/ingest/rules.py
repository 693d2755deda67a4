"""Rules that a click has to hold to; which of them it breaks first, and what becomes of it then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from prune_lib.errors import SettingsError

if TYPE_CHECKING:
    from pyspark.sql import Column

__all__ = [
    "KNOWN",
    "OF_SESSIONS",
    "PROTOCOL_RULES",
    "RULES",
    "SEVERITIES",
    "Limits",
    "Rule",
    "Severity",
    "broken",
    "severities",
    "warned_rules",
]

Severity = Literal["quarantine", "drop", "warn", "fail"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: by which settings and the quarantine know it.
        severity: by default. quarantine: the row goes to the quarantine table; drop: it is left out and
            counted; warn: it is taken, and counted; fail: the run ends before it writes anything.
        text: what is wrong with a row that breaks it.
    """

    name: str
    severity: Severity
    text: str


#: In the order in which a row is judged: by the first that it breaks.
RULES: tuple[Rule, ...] = (
    Rule("ragged", "quarantine", "the line has too many fields or too few, or a quote that is not closed"),
    Rule("unreadable", "quarantine", "the line is not one JSON object of this form"),
    Rule("encoding", "quarantine", "the line is not UTF-8"),
    Rule("no_session", "quarantine", "the id of the session (or user) is missing or empty"),
    Rule("no_item", "quarantine", "the id of the item is missing or empty"),
    Rule("long_id", "quarantine", "an id is longer than --max-id-length"),
    Rule("bad_time", "quarantine", "the time is missing, is none, or is of no year from 1900 to 9999"),
    Rule("negative_time", "quarantine", "the time is before 1970"),
    Rule("future_time", "quarantine", "the time is later than --latest"),
    Rule("other_kind", "drop", "the click is of a kind that --kinds leaves out"),
    Rule("duplicate", "drop", "the same click stands in the input once more"),
    Rule("long_session", "quarantine", "its session has more clicks than --max-clicks"),
    Rule("fast_session", "quarantine", "its session has a hundred clicks and more, at more than --max-rate"),
)
#: What takes out a click that a night before took: it is no rule, and counted as a dropped `duplicate`
#: whatever becomes of doubles, else a log that is read again would be there twice, or refused.
KNOWN = "known"
#: Rules that look at a whole session: what breaks them is judged last.
OF_SESSIONS = ("long_session", "fast_session")
#: Rules that the field's protocols have, after all others, each in the order of the steps.
PROTOCOL_RULES: tuple[Rule, ...] = (
    Rule("repeated_click", "drop", "the click before is on the same item (--collapse-repeats)"),
    Rule("short_session", "drop", "its session has fewer clicks than --min-length"),
    Rule("rare_item", "drop", "its item has fewer clicks than --min-support"),
    Rule(
        "between_parts", "drop", "its session ends where the test begins: of neither part, as SR-GNN has it"
    ),
    Rule("unseen_item", "drop", "its item is in the test and not in the training sessions"),
)


#: Microseconds of the years 1900 to 9999: Spark's writer of Parquet stops at what is before, and no datetime
#: of Python's holds what is after.
_YEARS = (-2_208_988_800_000_000, 253_402_300_799_999_999)


@dataclass(frozen=True)
class Limits:
    """What rules measure by.

    Attributes:
        id_length: characters of an id, at most.
        latest: microseconds since the epoch, at most.
        kinds: kinds of clicks that are wanted; empty for all.
        timed: whether clicks have times.
        fields: whether a line is fields between delimiters, not JSON.
    """

    id_length: int
    latest: int
    kinds: tuple[str, ...] = ()
    timed: bool = True
    fields: bool = True


def severities(changed: Sequence[str]) -> dict[str, Severity]:
    """The severity of every rule.

    Args:
        changed: of `rule:severity`, as the settings have them.

    >>> severities(["bad_time:drop"])["bad_time"]
    'drop'

    Raises:
        SettingsError: a rule or a severity that is none.
    """
    found = {rule.name: rule.severity for rule in RULES}
    for entry in changed:
        name, _, severity = entry.partition(":")
        if name not in found or severity not in SEVERITIES:
            raise SettingsError(
                f"--rule {entry}: write it as rule:severity; rules are {', '.join(found)}, severities "
                f"{', '.join(SEVERITIES)}."
            )
        found[name] = severity
    unreadable = [name for name in ("ragged", "unreadable", *_NEEDED) if found[name] == "warn"]
    if unreadable:
        raise SettingsError(
            f"--rule {unreadable[0]}:warn: such a row has no place in a session and cannot be taken with a "
            "warning. Give quarantine, drop or fail."
        )
    return found


#: Without what these ask for a click is none.
_NEEDED = ("no_session", "no_item", "bad_time")


def conditions(limits: Limits) -> dict[str, Column]:
    """When a click breaks a rule of single clicks, over the columns of `reading.read_clicks`."""
    from pyspark.sql import functions as F

    def empty(name: str) -> Column:
        # Few texts begin like one of blanks: most need not be trimmed to be seen as none.
        return F.col(name).isNull() | ((F.col(name) < "!") & (F.trim(name) == ""))

    def long(name: str) -> Column:
        # Characters are at most as many as bytes, which need not be counted.
        return (F.octet_length(name) > limits.id_length) & (F.length(name) > limits.id_length)

    kinds = F.lit(False)
    if limits.kinds:
        kinds = ~F.coalesce(F.col("kind"), F.lit("")).isin(list(limits.kinds))
    return {
        "ragged": ~F.col("readable") & F.lit(limits.fields),
        "unreadable": ~F.col("readable"),
        "encoding": ~F.col("utf8"),
        "no_session": empty("owner"),
        "no_item": empty("item"),
        "long_id": long("owner") | long("item"),
        "bad_time": (F.col("us").isNull() & F.lit(limits.timed)) | ~F.col("us").between(*_YEARS),
        "negative_time": F.col("us") < 0,
        "future_time": F.col("us") > limits.latest,
        "other_kind": kinds,
    }


def broken(limits: Limits, severity: Mapping[str, Severity]) -> tuple[Column, Column | None]:
    """The first rule that takes a click out (STRING, or null), and those that it breaks with a warning.

    The second is a number, INT, of which each bit is a rule of `warned_rules`; None where there are none.
    """
    from pyspark.sql import functions as F

    first = F.lit(None).cast("string")
    found = conditions(limits)
    for name in reversed(found):
        if severity[name] != "warn":
            first = F.when(F.coalesce(found[name], F.lit(False)), name).otherwise(first)
    bits = None
    for bit, name in enumerate(warned_rules(severity)):
        one = F.when(F.coalesce(found[name], F.lit(False)), 1 << bit).otherwise(0)
        bits = one if bits is None else bits + one
    return first, bits


def warned_rules(severity: Mapping[str, Severity]) -> list[str]:
    """Rules of single clicks that are to warn."""
    return [n for n, what in severity.items() if what == "warn" and n not in ("duplicate", *OF_SESSIONS)]

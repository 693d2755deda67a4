"""What became of the rows of an input, and when an input is refused for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from prune_lib.errors import InputError, PruneError
from prune_lib.ingest.rules import KNOWN, PROTOCOL_RULES, RULES, Severity

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from prune_lib.settings.ingest import IngestSettings

__all__ = ["Counts", "refused"]

_TEXT = {rule.name: rule.text for rule in (*RULES, *PROTOCOL_RULES)}
#: Rows, and rules, that a message shows.
_SHOWN = 3


@dataclass(frozen=True)
class Counts:
    """What became of the rows of an input; a row is a click, or a line that is none.

    Attributes:
        read: rows.
        clean: rows that are in the sessions.
        quarantined: rows by rule.
        dropped: rows by rule.
        failed: rows by rule whose severity is fail.
        warned: rows by rule that were taken all the same.
        lines: further lines of quarantined rows, where a row can have several.
    """

    read: int
    clean: int
    quarantined: Mapping[str, int]
    dropped: Mapping[str, int]
    failed: Mapping[str, int]
    warned: Mapping[str, int] = field(default_factory=dict)
    lines: int = 0

    @classmethod
    def of(
        cls,
        read: int,
        by_rule: Mapping[str | None, int],
        severity: Mapping[str, Severity],
        warned: Mapping[str, int] | None = None,
        lines: Mapping[str, int] | None = None,
    ) -> Counts:
        """From rows by rule (None: clean), the severity of each rule, and further lines of rows by rule."""
        of: dict[str, Counter[str]] = {"quarantine": Counter(), "drop": Counter(), "fail": Counter()}
        for name, count in by_rule.items():
            if name is not None and count:
                rule, what = ("duplicate", "drop") if name == KNOWN else (name, severity[name])
                of[what][rule] += count
        clean, aside = by_rule.get(None, 0), dict(of["quarantine"])
        more = sum((lines or {}).get(name, 0) for name in aside)
        return cls(read, clean, aside, dict(of["drop"]), dict(of["fail"]), dict(warned or {}), more)

    @property
    def by_rule(self) -> dict[str, int]:
        """Rows that are quarantined or dropped; doubles can be either."""
        return dict(Counter(self.quarantined) + Counter(self.dropped))

    def bad(self, most: float) -> bool:
        """Whether the input is to be refused: a rule that fails it, or more bad lines than that share."""
        bad = sum(self.quarantined.values()) + self.lines
        return bool(self.failed) or bad > most * (self.read + self.lines)

    def prepared(self, dropped: Mapping[str, int]) -> Counts:
        """After a protocol has dropped clicks that were clean."""
        more = {name: count for name, count in dropped.items() if count}
        return replace(self, clean=self.clean - sum(more.values()), dropped={**self.dropped, **more})

    def check(self, in_sessions: int) -> None:
        """See that no row is lost and none is there twice.

        Args:
            in_sessions: clicks of the sessions that are to be written.

        Raises:
            PruneError: a sum does not hold.
        """
        aside = sum(map(sum, (x.values() for x in (self.quarantined, self.dropped, self.failed))))
        if not (self.read == self.clean + aside and self.clean == in_sessions):
            raise PruneError(
                f"{self.read:,} rows were read, {self.clean:,} are clean, {in_sessions:,} of them in "
                f"sessions, and {aside:,} are quarantined or dropped: that is no sum. No table was touched. "
                "Does another job write to the input?"
            )

    @staticmethod
    def text(rule: str) -> str:
        """What is wrong with a row that breaks a rule."""
        return _TEXT[rule]


def refused(counts: Counts, settings: IngestSettings, aside: DataFrame) -> InputError:
    """Why an input is refused: a rule that fails it, too many bad rows, or no click at all.

    Args:
        counts: what became of its rows.
        settings: what was asked for.
        aside: rows that broke the rules of which it is told, of `gathering.set_aside`.
    """
    if counts.failed:
        name, count = next(iter(counts.failed.items()))
        return InputError(
            f"{count:,} of {counts.read:,} rows of {settings.input} break the rule {name}, which is to fail "
            f"the run: {_TEXT[name]}. {_examples(aside, name)} No table was touched."
        )
    if counts.bad(settings.max_bad):
        bad, read = sum(counts.quarantined.values()) + counts.lines, counts.read + counts.lines
        rows = "lines" if counts.lines else "rows"
        worst = sorted(counts.quarantined, key=lambda name: -counts.quarantined[name])
        told = "; ".join(f"{counts.quarantined[name]:,} {name}: {_TEXT[name]}" for name in worst[:_SHOWN])
        lines = " Do fields hold line breaks (--multi-line)?" if worst[0] == "ragged" else ""
        return InputError(
            f"{bad:,} of {read:,} {rows} of {settings.input} are bad, {100 * bad / read:.1f} %, "
            f"and --max-bad allows {100 * settings.max_bad:g} %: {told}. {_examples(aside, worst[0])} Is "
            f"this the right --form, --format or --delimiter?{lines} No table was touched."
        )
    if not counts.read:
        return InputError(
            f"{settings.input} holds no click: a header only, or empty files. No table was touched."
        )
    told = "; ".join(
        f"{n:,} {name}: {_TEXT[name]}" for name, n in {**counts.dropped, **counts.quarantined}.items()
    )
    return InputError(
        f"No click of {settings.input} is left of {counts.read:,} rows ({told}). No table was touched."
    )


def _examples(aside: DataFrame, rule: str) -> str:
    from pyspark.sql import functions as F

    record = F.decode(F.col("record").cast("binary"), "UTF-8").alias("record")
    bad = aside.where(F.col("rule") == rule).orderBy("file", "at", "place")
    rows = bad.select("at", record).limit(_SHOWN).collect()
    shown = [(f"line {row['at']}: " if row["at"] else "") + repr((row["record"] or "")[:80]) for row in rows]
    return f"Such as {', '.join(shown)}."

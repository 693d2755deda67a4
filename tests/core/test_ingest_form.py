"""Forms of logs: those of public data sets, and how one is found by the names of its columns."""

from __future__ import annotations

import re
import sys

import pytest

from prune_lib.errors import InputError, PruneError, SettingsError
from prune_lib.ingest.counts import Counts
from prune_lib.ingest.fields import more_fields, unclosed, well_quoted
from prune_lib.ingest.form import (
    ROLES,
    Form,
    form_names,
    guessed,
    list_columns,
    load_form,
    nested_columns,
)
from prune_lib.ingest.rules import KNOWN, RULES, severities
from prune_lib.settings.ingest import IngestSettings

NOBODY: dict[str, str | None] = dict.fromkeys(ROLES)


def test_every_form_can_be_read_and_is_in_the_help() -> None:
    assert len(form_names()) >= 7
    listed = IngestSettings.model_fields["form"].description or ""
    for name in form_names():
        form = load_form(name)
        assert (form.session is None) != (form.user is None) and name in listed
        if form.header is not None:
            assert set(form.columns().values()) <= set(form.header)


def test_columns_are_found_by_their_names_and_those_named_come_first() -> None:
    columns = ["Visitor ID", "product-id", "ItemId", "TIME", "event_type", "odd`name"]
    found = guessed(columns, NOBODY, "csv", delimiter=";")
    assert found == Form(
        format="csv", delimiter=";", user="Visitor ID", item="ItemId", time="TIME", kind="event_type"
    )
    named = {**NOBODY, "item": "product-id", "session": "odd`name"}
    found = guessed(columns, named, "csv", delimiter=";")
    assert (found.session, found.item) == ("odd`name", "product-id")


def test_sessions_of_users_where_the_user_asks_for_them() -> None:
    columns = ["session", "user", "item", "ts"]
    assert guessed(columns, NOBODY, "csv").session == "session"
    assert guessed(columns, {**NOBODY, "user": "user"}, "csv").session is None


def test_what_a_json_object_holds_that_is_no_value() -> None:
    first = {"item": {"id": 5}, "items": [{"id": 5, "qty": 1}], "all": [[1], 2], "few": [], "session": "[{"}
    assert list_columns(first) == {"few"}
    assert list(nested_columns(first)) == ["items", "all", "item"]
    # What can be done without is left out, unless it was asked for.
    columns, nested = ["session", "user", "item", "ts", "event"], {"user", "event", "item"}
    found = guessed(columns, NOBODY, "jsonl", nested=nested)
    assert (found.user, found.kind, found.item) == (None, None, "item")
    assert guessed(columns, {**NOBODY, "kind": "event"}, "jsonl", nested=nested).kind == "event"
    assert guessed(columns[1:], NOBODY, "jsonl", nested=nested).user == "user"
    # Not each object has what a click can do without; a slip of the pen is told all the same.
    assert guessed(columns, {**NOBODY, "kind": "what"}, "jsonl", nested=nested).kind == "what"
    for wrong, format in (
        ({"kind": "evnt"}, "jsonl"),
        ({"item": "what"}, "jsonl"),
        ({"kind": "what"}, "csv"),
    ):
        with pytest.raises(InputError, match="There is no column"):
            guessed(columns, {**NOBODY, **wrong}, format, nested=nested)


def test_a_kind_of_whole_sessions_is_taken_where_it_was_named() -> None:
    columns = ["session", "items", "type"]
    for lists, mark in (({"items"}, None), ((), " ")):
        assert guessed(columns, NOBODY, "csv", lists=lists, list_delimiter=mark).kind is None
        named = {**NOBODY, "kind": "type"}
        assert guessed(columns, named, "csv", lists=lists, list_delimiter=mark).kind == "type"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python's own patterns are not possessive before 3.11")
@pytest.mark.parametrize("mark", [",", ";", "\t", "|", " ", "]", "^", "-", "\\"])
def test_quotes_and_fields_of_a_line(mark: str) -> None:
    def line(text: str) -> str:
        return text.replace("@", mark)

    for text in ('a@1@"abc', 'a@1@"abc@d', 'a@"', '"', '"a""', 'a@"b""', '"a@b"@"c""d'):
        assert re.search(unclosed(mark), line(text)), text
    for text in (
        "",
        "a@b",
        'a@5"',
        'a@"b"',
        '"a@"',
        'a@"x"y"z@w"',
        'a@""',
        'a@""b',
        '"a"b@"c"d',
        'a@"b@""c"',
    ):
        assert not re.search(unclosed(mark), line(text)), text
    assert re.search(more_fields(mark, 3), line('a@"@@@@"@5"@')) is not None
    assert re.search(more_fields(mark, 3), line('a@"@@""@@"@5"')) is None
    for text in ("", "a@b", 'a@5" tv@', 'a@"b\n@\nc"', '"a""\n"@""@c'):
        assert re.search(well_quoted(mark), line(text)), text
    for text in ("a\nb", 'a@5" tv\nb@5" tv', 'a@"b"c@d', 'a@"b\nc@d', 'a@"b\nc"d@"e"', 'a@"b"\n'):
        assert not re.search(well_quoted(mark), line(text)), text
    # None goes deep.
    assert re.search(well_quoted(mark), line('"@\n"@' * 100_000))
    assert re.search(unclosed(mark), line('"@"@' * 100_000 + '"'))
    assert re.search(more_fields(mark, 20_480), line("@" * 20_480))


@pytest.mark.parametrize(
    ("columns", "named", "said"),
    [
        (["a", "b"], {}, "session and the item and the time .*--session-column, --item-column"),
        (["session", "item", "ts"], {"item": "itme"}, r"no column itme \(--item-column\).*Did you mean item"),
    ],
)
def test_what_is_missing_is_named(columns: list[str], named: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        guessed(columns, {**NOBODY, **named}, "csv")


def test_severities_are_changed_one_by_one() -> None:
    found = severities(["bad_time:fail", "duplicate:warn"])
    assert found["bad_time"] == "fail" and found["duplicate"] == "warn" and found["no_item"] == "quarantine"
    assert list(found) == [rule.name for rule in RULES]
    for wrong in ("bad_time", "bad_time:maybe", "none:drop", "ragged:warn"):
        with pytest.raises(SettingsError, match=f"--rule {wrong}"):
            severities([wrong])


def test_a_sum_that_does_not_hold_is_a_failure() -> None:
    counts = Counts(10, 6, {"no_item": 2}, {"duplicate": 1}, {"bad_time": 1}, {"long_id": 3})
    counts.check(in_sessions=6)
    for wrong, in_sessions in ((counts, 5), (Counts(11, 6, {"no_item": 2}, {"duplicate": 2}, {}, {}), 6)):
        with pytest.raises(PruneError, match="that is no sum"):
            wrong.check(in_sessions)


@pytest.mark.parametrize("severity", ["drop", "warn", "quarantine", "fail"])
def test_what_a_night_before_took_is_dropped_whatever_becomes_of_doubles(severity: str) -> None:
    taken = {"duplicate": 2} if severity != "warn" else {}
    counts = Counts.of(10, {None: 5, KNOWN: 3, **taken}, severities([f"duplicate:{severity}"]))
    assert counts.dropped == {"duplicate": 5 if severity == "drop" else 3}
    assert counts.bad(0.5) == (severity == "fail")
    assert counts.by_rule == {"duplicate": 5 if severity in ("drop", "quarantine") else 3}


def test_bad_lines_are_counted_not_records() -> None:
    of = severities(["bad_time:drop"])
    counts = Counts.of(100, {None: 97, "ragged": 2, "bad_time": 1}, of, lines={"ragged": 900, "bad_time": 7})
    assert counts.lines == 900 and counts.bad(0.9) and not counts.bad(0.91)

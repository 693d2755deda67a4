"""Settings of `ingest`: flags, the file of all settings, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune_lib.cli import ingest_main
from prune_lib.errors import SettingsError
from prune_lib.settings.document import default_yaml
from prune_lib.settings.ingest import IngestSettings
from prune_lib.settings.sources import load

ROOT = Path(__file__).resolve().parents[2]


def settings(*flags: str) -> IngestSettings:
    return load(IngestSettings, list(flags), {})


def test_flags() -> None:
    assert settings("--input", "log.csv").resolved_output == "./workspace/sessions"
    s = settings(
        "--input", "x", "--rule", "duplicate:warn,bad_time:drop", "--kinds", "view", "--max-bad", "0"
    )
    assert (s.rule, s.kinds, s.max_bad) == (("duplicate:warn", "bad_time:drop"), ("view",), 0.0)
    assert settings("--input", "x", "--delimiter", ";", "--gap-minutes", "20").gap_minutes == 20


def test_the_file_of_all_settings_is_the_defaults() -> None:
    # Where this fails: python -m prune_lib.settings.document ingest > conf/ingest.yaml
    assert (ROOT / "conf" / "ingest.yaml").read_text() == default_yaml(IngestSettings)


def test_the_document_lists_every_rule_with_its_severity() -> None:
    from prune_lib.ingest.rules import PROTOCOL_RULES, RULES

    text = (ROOT / "docs" / "ingest.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert f"| `{rule.name}` | {rule.severity} | {rule.text} |" in text
    for rule in PROTOCOL_RULES:
        assert f"| `{rule.name}` | {rule.text} |" in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--input"),
        (["--input", "x", "--latest", "tomorrow"], "--latest must be a time such as"),
        (["--input", "x", "--form", "otto", "--delimiter", ";"], "--delimiter says it again"),
        (["--input", "x", "--max-bad", "5"], "--max-bad"),
        (
            ["--input", "x", "--append", "--protocol", "srgnn"],
            "--append adds to sessions, and --protocol needs",
        ),
        (
            ["--input", "x", "--append", "--min-length", "2"],
            "--append adds to sessions, and --min-length needs",
        ),
        (["--input", "x", "--output", "a..b"], "--output"),
        (["--input", "x", "--ratio", "0.1"], "--ratio is not a flag"),
    ],
)
def test_mistakes(flags: list[str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings(*flags)
    assert said in str(error.value)


def test_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        ingest_main(["--input", "x", "--latest", "soon"])
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("ingest: error: --latest")

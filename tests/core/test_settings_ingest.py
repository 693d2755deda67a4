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
    assert settings("--input", "x", "--delimiter", r"\t").delimiter == "\t"
    assert settings("--input", "x", "--list-delimiter", r"\t").list_delimiter == "\t"
    with pytest.raises(SettingsError, match="--delimiter must be one character; got 'ab'"):
        settings("--input", "x", "--delimiter", "ab")


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


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--input", "{0}/logs", "--output", "{0}/logs"], "is the input itself"),
        (["--input", "{0}/logs", "--output", "{0}/logs/sessions"], "lies in the folder of the input"),
        (["--input", "{0}/logs/clicks.csv", "--output", "{0}/logs"], "lies around the input"),
        (["--input", "{0}/out_test", "--output", "{0}/out"], "would put its companion {0}/out_test"),
        (
            ["--input", "./workspace/sessions", "--protocol", "srgnn"],
            "the default of output './workspace/sess",
        ),
        (["--input", "."], "give --input the log alone, by a folder of its own"),
        (["--input", "workspace.d", "--output", "./workspace.d/sessions"], "lies in the folder of the input"),
        (
            ["--input", "{0}/logs/*", "--output", "{0}/logs/sessions"],
            "takes in {0}/logs/sessions. Name another",
        ),
        (
            ["--input", "{0}/{{logs,more}}/*_ingests", "--output", "{0}/logs/s"],
            "takes in {0}/logs/s_ingests.",
        ),
        (["--input", "shop.Sessions", "--output", "shop.sessions"], "is the input itself"),
    ],
)
def test_an_output_where_the_log_lies(tmp_path: Path, flags: list[str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings(*(flag.format(tmp_path) for flag in flags))
    assert said.format(tmp_path) in str(error.value)
    assert "an ingest never writes over its input" in str(error.value)


@pytest.mark.parametrize(
    ("log", "output"),
    [
        ("./logs", None),
        ("*.csv", None),
        ("clicks.csv", "./sessions"),
        ("/logs/2026-*/*.csv.gz", "/logs/sessions"),
        ("/logs", "/logs_sessions"),
        ("shop.log", "shop.sessions"),
        ("/logs/*", "shop.sessions"),
    ],
)
def test_an_output_beside_the_log(log: str, output: str | None) -> None:
    assert settings("--input", log, *(["--output", output] if output else [])).output == output


def test_a_switch_that_is_off_is_off_whatever_says_so(tmp_path: Path) -> None:
    asked = ["--input", "x", "--protocol", "srgnn"]
    assert not settings(*asked, "--no-append").append
    assert not load(IngestSettings, asked, {"INGEST_APPEND": "false"}).append
    (tmp_path / "set.yaml").write_text("append: true\ncollapse_repeats: false\n")
    assert settings("--input", "x", "--config", str(tmp_path / "set.yaml")).append
    with pytest.raises(SettingsError, match="`append` .*adds to sessions, and --collapse-repeats needs"):
        settings("--input", "x", "--config", str(tmp_path / "set.yaml"), "--collapse-repeats")


def test_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        ingest_main(["--input", "x", "--latest", "soon"])
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("ingest: error: --latest")

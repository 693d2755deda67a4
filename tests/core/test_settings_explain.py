"""Settings of `explain`: flags, the file of all settings, the help, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune_lib.cli import explain_main
from prune_lib.errors import SettingsError
from prune_lib.settings.document import default_yaml
from prune_lib.settings.explain import ExplainSettings
from prune_lib.settings.sources import load

ROOT = Path(__file__).resolve().parents[2]


def settings(*flags: str) -> ExplainSettings:
    return load(ExplainSettings, list(flags), {})


def test_flags() -> None:
    assert settings("--session", "4711").resolved_output == "./workspace/pruned"
    s = settings("--item", "7", "--output", "shop.kept", "--lines", "3")
    assert (s.item, s.session, s.resolved_output, s.lines) == ("7", None, "shop.kept", 3)
    assert settings("--session", "-5").session == "-5", "an id may be below zero"


def test_the_file_of_all_settings_is_the_defaults() -> None:
    path = ROOT / "conf" / "explain.yaml"
    # Where this fails: python -m prune_lib.settings.document explain > conf/explain.yaml
    assert path.read_text() == default_yaml(ExplainSettings)
    s = settings("--config", str(path), "--session", "1")
    assert s.model_copy(update={"config": None}) == ExplainSettings(session="1")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "there is nothing to explain: give the id of a session by --session"),
        (["--session", ""], "--session"),
        (["--sesion", "4711"], "--sesion is not a flag. Did you mean --session?"),
        (["--session", "-a_b"], "-a_b is not a flag. If it is a value, write --session=-a_b."),
        (["--session", "1", "--output", "a.b.c.d"], "has 4 parts"),
        (["--session", "1", "--lines", "0"], "must be 1 or more; got 0"),
        (["--item", "1", "--length", "3"], "names a sample of a session: give the session's id"),
        (["--session", "1", "--length", "1"], "must be 2 or more; got 1"),
    ],
)
def test_mistakes(flags: list[str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings(*flags)
    assert said in str(error.value)


def test_the_help_and_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings("--help")
    text = capsys.readouterr().out
    assert text.startswith("usage: spark-submit jobs/explain.py --session X | --item Y [flags]")
    assert "--sampling" not in text and "ratio" not in text and max(map(len, text.splitlines())) <= 100
    with pytest.raises(SystemExit) as stopped:
        explain_main([])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("explain: error: there is nothing to explain")

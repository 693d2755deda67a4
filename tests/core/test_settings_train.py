"""Settings of `train`: flags, the file of all settings, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune_lib.cli import train_main
from prune_lib.errors import SettingsError
from prune_lib.settings.document import default_yaml
from prune_lib.settings.sources import load
from prune_lib.settings.train import ExpertsSettings

ROOT = Path(__file__).resolve().parents[2]


def settings(*flags: str) -> ExpertsSettings:
    return load(ExpertsSettings, list(flags), {})


def test_flags() -> None:
    assert settings().resolved_input == "./workspace/sessions"
    s = settings("--input", "shop.clicks", "--register-as", "main.shop.experts", "--alias", "champion")
    assert (s.resolved_input, s.register_as, s.alias) == ("shop.clicks", "main.shop.experts", "champion")
    assert settings("--training-epochs", "3").training.epochs == 3


def test_the_file_of_all_settings_is_the_defaults() -> None:
    path = ROOT / "conf" / "train.yaml"
    # Where this fails: python -m prune_lib.settings.document train > conf/train.yaml
    assert path.read_text() == default_yaml(ExpertsSettings)
    assert settings("--config", str(path)).model_copy(update={"config": None}) == ExpertsSettings()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--alias", "champion"], "nothing is registered. Name the model by --register-as"),
        (["--register-as", "m", "--alias", "a b"], "--alias"),
        (["--version", "1", "--timestamp", "2026-01-01"], "exclude each other"),
        (["--output", "~/experts"], "begins with a ~"),
        (["--since", "yesterday"], "--since must be a moment"),
        (["--ratio", "0.1"], "--ratio is not a flag"),
    ],
)
def test_mistakes(flags: list[str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings(*flags)
    assert said in str(error.value)


def test_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train_main(["--alias", "champion"])
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("train: error: --alias")

"""What a run's record says it was asked by: a command that was given, or the call that gives the same."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from prune_lib.evaluation.command import asked_by
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.settings.sources import load, of_call


def evaluated(call: str) -> EvaluateSettings:
    """The settings that a recorded call gives, as `prune_lib.evaluate` reads them."""
    asked = ast.parse(call, mode="eval").body
    assert isinstance(asked, ast.Call) and ast.unparse(asked.func) == "prune_lib.evaluate"
    given: dict[str, Any] = {str(word.arg): ast.literal_eval(word.value) for word in asked.keywords}
    if asked.args:
        given["input"] = ast.literal_eval(asked.args[0])
    return of_call(EvaluateSettings, given)


def test_a_command_is_recorded_as_it_was_given(tmp_path: Path) -> None:
    argv = ["--seeds", "2", "--quick", "--workspace", "/tmp/w", "--input", "/a/my clicks"]
    wanted = "jobs/evaluate.py --seeds 2 --quick --input '/a/my clicks'"
    assert asked_by(load(EvaluateSettings, argv, {}), argv) == wanted
    file = tmp_path / "conf.yaml"
    file.write_text("seeds: 1\n")
    argv = ["--config", str(file)]
    assert asked_by(load(EvaluateSettings, argv, {}), argv) == f"jobs/evaluate.py --config {file}"


@pytest.mark.parametrize("argv", [["-f", "/run/kernel-1.json"], ["--help"], ["--seeds", "1"], []])
def test_what_a_program_asked_for_is_not_recorded_as_its_own_arguments(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = EvaluateSettings(
        input="/a/x", ratios=(0.1, 1.0), sampling={"kappa": 0.0}, fit={"steps": 9}, workspace="/tmp/w"
    )
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", *argv])
    call = asked_by(settings)
    assert call == (
        "prune_lib.evaluate('/a/x', ratios=[0.1, 1.0], sampling={'kappa': 0.0}, fit={'steps': 9})"
    )
    assert evaluated(call) == settings.model_copy(update={"workspace": "./workspace"})
    assert capsys.readouterr().out == ""


def test_a_quick_call_is_told_by_what_it_has_beside_quick() -> None:
    call = asked_by(EvaluateSettings(quick=True, name="shop", seeds=2), ["x"])
    assert call == "prune_lib.evaluate(seeds=2, name='shop', quick=True)"
    assert evaluated(call) == EvaluateSettings(quick=True, name="shop", seeds=2)

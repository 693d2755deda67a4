"""No secret in what is written, no pickle in what is read, no path that strays."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from prune_lib.errors import SettingsError
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.settings import PruneSettings
from prune_lib.settings.explain import ExplainSettings
from prune_lib.settings.ingest import IngestSettings
from prune_lib.settings.job import JobSettings
from prune_lib.settings.report import ReportSettings
from prune_lib.settings.sources import load
from prune_lib.settings.train import ExpertsSettings

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {
    PruneSettings: ["--ratio", "0.1"],
    IngestSettings: ["--input", "clicks.csv"],
    ExpertsSettings: [],
    EvaluateSettings: ["--quick"],
    ReportSettings: [],
    ExplainSettings: ["--session", "1"],
}
ADDRESSES = (
    "s3a://AKIA:planted@bucket/x",
    "https://me:planted@host/x",
    "abfss://box@account.dfs.core.windows.net/x?sv=2024&sig=planted",
    "wasbs://box@account/x?SharedKey=1&accessKey=planted",
)


def locations_of(model: type[JobSettings]) -> list[str]:
    """The settings of a job that can be an address: the texts that are not one of a few words."""
    found = []
    for name, field in model.model_fields.items():
        if field.annotation in (str, str | None) and name not in ("config", "timestamp", "session", "item"):
            found.append(field.alias or name)
    return found


@pytest.mark.parametrize("model", NEEDED, ids=lambda model: model.job.name)
def test_a_secret_in_an_address_is_refused_and_not_repeated(
    model: type[JobSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = locations_of(model)
    assert {"workspace"} <= set(names)
    for name in names:
        flag = f"--{name.replace('_', '-')}"
        own = NEEDED[model] if flag not in NEEDED[model] else []
        for address in ADDRESSES:
            with pytest.raises(SettingsError) as told:
                load(model, [*own, flag, address], {})
            assert "planted" not in str(told.value) and "AKIA" not in str(told.value)
            assert flag in str(told.value)
            if name in ("input", "output", "workspace", "experts", "checkpoints", "test"):
                assert "Spark's own configuration" in str(told.value)
    with pytest.raises(SettingsError) as told:
        load(model, NEEDED[model], {f"{model.job.env_prefix}WORKSPACE": ADDRESSES[0]})
    assert f"{model.job.env_prefix}WORKSPACE" in str(told.value) and "planted" not in str(told.value)


def test_an_address_without_a_secret_is_one() -> None:
    for place in (
        "s3a://bucket/x",
        "abfss://box@account.dfs.core.windows.net/x",
        "file:/data/x",
        "/data/a@b:c",
    ):
        assert PruneSettings(ratio=0.1, input=place).input == place


@pytest.mark.parametrize(
    ("model", "flag"),
    [
        (PruneSettings, "--output"),
        (PruneSettings, "--workspace"),
        (PruneSettings, "--checkpoints"),
        (IngestSettings, "--output"),
        (EvaluateSettings, "--document"),
        (ReportSettings, "--path"),
    ],
)
def test_what_is_written_outside_is_named_in_full(
    model: type[JobSettings], flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for stray in ("../else", "./a/../../else", "a/../../else"):
        with pytest.raises(SettingsError, match=f"{flag}.* leads out of this folder.*{tmp_path.parent}/else"):
            load(model, [*NEEDED[model], flag, stray], {})
    load(model, [*NEEDED[model], flag, "./a/../b"], {})
    load(model, [*NEEDED[model], flag, str(tmp_path.parent / "else")], {})


def test_an_input_may_lie_anywhere() -> None:
    assert PruneSettings(ratio=0.1, input="../shared/clicks").input == "../shared/clicks"


def sources() -> Iterator[tuple[str, ast.AST]]:
    for folder in ("prune_lib", "jobs"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                yield str(file.relative_to(ROOT)), node


#: Modules that make code of data, or run it.
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = re.compile(
    r"^(eval|exec|compile|os\.system|os\.popen|(pd|pandas)\.read_pickle|yaml\.(load|unsafe_load|full_load)"
    r"|torch\.(load|save)|.*\.to_pickle)$"
)


def unsafe(node: ast.AST) -> str | None:
    """What of a piece of code could run what it reads."""
    if isinstance(node, ast.Import):
        return next((a.name for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES), None)
    if isinstance(node, ast.ImportFrom):
        return node.module if (node.module or "").split(".")[0] in UNSAFE_MODULES else None
    if not isinstance(node, ast.Call):
        return None
    name = ast.unparse(node.func)
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if UNSAFE_CALLS.match(name) or given.get("shell") == "True" or given.get("allow_pickle") == "True":
        return ast.unparse(node)
    return None


def test_nothing_is_unpickled_and_no_text_is_run() -> None:
    found = [(file, what) for file, node in sources() if (what := unsafe(node))]
    assert found == []


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from joblib import load", "torch.load(f)", "np.load(f, allow_pickle=True)", "eval(x)",
     "subprocess.run(x, shell=True)", "yaml.load(f)", "pd.read_pickle(f)"],
)  # fmt: skip
def test_what_is_looked_for_would_be_found(code: str) -> None:
    assert any(unsafe(node) for node in ast.walk(ast.parse(code)))

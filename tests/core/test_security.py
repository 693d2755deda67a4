"""No secret in what is written, no pickle in what is read, no path that strays."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from prune_lib.cli import run_job
from prune_lib.errors import InputError, SettingsError
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.settings import PruneSettings
from prune_lib.settings.explain import ExplainSettings
from prune_lib.settings.ingest import IngestSettings
from prune_lib.settings.job import JobSettings
from prune_lib.settings.report import ReportSettings
from prune_lib.settings.sources import load, of_call
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
    # As half of AWS's keys are; and a password with the sign that ends it.
    "s3a://AKIA:abc/planted+def@bucket/x",
    # It begins as a port does, which S3 has not.
    "s3a://AKIA:12/planted+def@bucket/x",
    "https://me:p@planted@host/x",
    "https://planted@host/x",
    "https://host/x?access_token=planted",
    "https://host/x?X-Goog-Credential=a&X-Goog-Signature=planted",
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


def test_a_secret_is_found_wherever_a_setting_stands(tmp_path: Path) -> None:
    """In a list, in the settings' own file, under a flag that does not exist, from a program."""
    address = ADDRESSES[0]
    file = tmp_path / "job.yaml"
    file.write_text(f"ratio: 0.1\ninput: {address}\n")
    for model, argv in (
        (IngestSettings, ["--input", "clicks.csv", "--keep", address]),
        (PruneSettings, ["--ratio", "0.1", "--config", address]),
        (PruneSettings, ["--config", str(file)]),
        (PruneSettings, ["--ratio", "0.1", "--inptu", address]),
        (PruneSettings, ["--ratio", "0.1", address]),
    ):
        with pytest.raises(SettingsError) as told:
            load(model, argv, {})
        assert "planted" not in str(told.value) and "AKIA" not in str(told.value), argv
    with pytest.raises(ValidationError) as refused:
        PruneSettings(ratio=0.1, input=address)
    assert "Spark's own configuration" in str(refused.value) and "planted" not in str(refused.value)
    with pytest.raises(SettingsError) as told:
        of_call(PruneSettings, {"ratio": 0.1, "input": address})
    assert "planted" not in str(told.value)


def test_no_failure_tells_the_password_of_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither message, trace, log lines, --json nor the file of a failure, whatever a library says."""
    address = "http://me:planted@127.0.0.1:9/api?access_token=planted"

    def job(settings: PruneSettings) -> object:
        logging.getLogger("prune_lib").warning("no answer from %s", address)
        try:
            raise OSError(f"no route to {address}")
        except OSError as cause:
            raise kind(f"no answer from {address}") from cause

    for more in ([], ["--verbose"], ["--json"], ["--log-json"]):
        for kind in (RuntimeError, InputError):
            argv = ["--ratio", "0.1", "--workspace", str(tmp_path), *more]
            assert run_job(PruneSettings, job, argv) == (1 if kind is RuntimeError else 2)
            out, err = capsys.readouterr()
            assert "127.0.0.1" in err and "planted" not in out + err, more
            assert ("Traceback" in err) == (more == ["--verbose"])
    files = list((tmp_path / "logs").iterdir())
    assert files
    for file in files:
        text = file.read_text()
        assert "Traceback" in text and "no route to http://***@127.0.0.1" in text and "planted" not in text


def test_an_address_without_a_secret_is_one() -> None:
    for place in (
        "s3a://bucket/x",
        "abfss://box@account.dfs.core.windows.net/x",
        "file:/data/x",
        "/data/a@b:c",
        "hdfs://name:8020/a@b",
        "s3a://bucket/sort_key=1/x",
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
        (ReportSettings, "--output"),
    ],
)
def test_what_is_written_outside_is_named_in_full(
    model: type[JobSettings], flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for stray in ("../else", "./a/../../else", "a/../../else", "../else/x:y/.."):
        with pytest.raises(SettingsError, match=f"{flag}.* leads out of this folder.*{tmp_path.parent}/else"):
            load(model, [*NEEDED[model], flag, stray], {})
    load(model, [*NEEDED[model], flag, "./a/../b"], {})
    load(model, [*NEEDED[model], flag, str(tmp_path.parent / "else")], {})


def test_what_is_only_read_may_lie_anywhere() -> None:
    given = PruneSettings(ratio=0.1, input="../shared/clicks", experts="../experts")
    assert (given.input, given.experts) == ("../shared/clicks", "../experts")
    assert ExplainSettings(session="1", output="../kept").output == "../kept", "it looks at the table"
    assert ReportSettings(output="../kept", path="page.html").output == "../kept", "the page lies here"


def sources() -> Iterator[tuple[str, ast.AST]]:
    for folder in ("prune_lib", "jobs", "scripts", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                yield str(file.relative_to(ROOT)), node


#: Modules that make code of data, or run it.
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = re.compile(
    r"^((builtins\.)?(eval|exec|compile)|os\.(system|popen)|(.*\.)?(read_pickle|to_pickle|pickleFile|saveAsPickleFile)"
    r"|yaml\.(load|load_all|unsafe_load|full_load)|torch\.(load|save)|(mlflow\..*|pyfunc)\.load_model)$"
)
# Where one of these is not plainly off.
UNSAFE_WORDS = ("shell", "allow_pickle")


def unsafe(node: ast.AST) -> str | None:
    """What of a piece of code could run what it reads."""
    if isinstance(node, ast.Import):
        return next((a.name for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES), None)
    if isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{a.name}" for a in node.names]
        found = (n for n in names if n.split(".")[0] in UNSAFE_MODULES or UNSAFE_CALLS.match(n))
        return next(found, None)
    if not isinstance(node, ast.Call):
        return None
    name = ast.unparse(node.func)
    if name in ("__import__", "importlib.import_module", "import_module") and node.args:
        named = ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else ""
        return ast.unparse(node) if str(named).split(".")[0] in UNSAFE_MODULES else None
    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
    if UNSAFE_CALLS.match(name) or any(given.get(word, "False") != "False" for word in UNSAFE_WORDS):
        return ast.unparse(node)
    return None


def test_nothing_is_unpickled_and_no_text_is_run() -> None:
    found = [(file, what) for file, node in sources() if (what := unsafe(node))]
    # The project's own docs/sql.md, whose results it writes.
    assert {file for file, _ in found} == {"scripts/sql_recipes.py"}
    assert len(found) == 2 and all("DOCUMENT.name, 'exec'" in what for _, what in found)


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from joblib import load", "torch.load(f)", "np.load(f, allow_pickle=True)", "eval(x)",
     "subprocess.run(x, shell=True)", "subprocess.run(x, shell=on)", "yaml.load(f)", "pd.read_pickle(f)",
     "from pandas import read_pickle", "from torch import load", "__import__('pickle')",
     "importlib.import_module('cloudpickle.x')", "sc.pickleFile(f)", "mlflow.pyfunc.load_model(u)"],
)  # fmt: skip
def test_what_is_looked_for_would_be_found(code: str) -> None:
    assert any(unsafe(node) for node in ast.walk(ast.parse(code)))

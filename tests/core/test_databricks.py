"""The Databricks bundle of conf/, checked offline: against the classes of its resources, and the jobs."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from databricks.bundles.alerts import Alert
from databricks.bundles.experiments import MlflowExperiment
from databricks.bundles.jobs import Job
from databricks.bundles.registered_models import RegisteredModel
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume

from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.schemas import TABLES
from prune_lib.settings import PruneSettings
from prune_lib.settings.ingest import IngestSettings
from prune_lib.settings.job import JobSettings
from prune_lib.settings.report import ReportSettings
from prune_lib.settings.sources import load
from prune_lib.settings.train import ExpertsSettings

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
CLASSES: dict[str, Any] = {
    "alerts": Alert,
    "experiments": MlflowExperiment,
    "jobs": Job,
    "registered_models": RegisteredModel,
    "schemas": Schema,
    "volumes": Volume,
}
ENTRY_POINTS: dict[str, type[JobSettings]] = {
    "evaluate-pruning": EvaluateSettings,
    "ingest-clicks": IngestSettings,
    "prune": PruneSettings,
    "report-pruning": ReportSettings,
    "train-experts": ExpertsSettings,
}
#: Of the bundle itself there is no class: the keys that its reference lists.
BUNDLE_KEYS = {"bundle", "include", "artifacts", "variables", "targets"}
TARGET_KEYS = {"mode", "default", "variables", "presets", "workspace", "run_as", "permissions", "resources"}
#: What `mode: development` puts before names, and before those of Unity Catalog.
PREFIX, UC_PREFIX = "[dev ann] ", "dev_ann_"


def bundle(target: str) -> dict[str, Any]:
    """The bundle as the CLI would see it for a target: files included, references replaced."""
    whole = yaml.safe_load((CONF / "databricks.yml").read_text())
    chosen = whole["targets"][target]
    whole["resources"] = {}
    for pattern in whole["include"]:
        files = sorted(CONF.glob(pattern))
        assert files, pattern
        for file in files:
            for kind, found in yaml.safe_load(file.read_text())["resources"].items():
                assert not set(found) & set(whole["resources"].get(kind, {}))
                whole["resources"].setdefault(kind, {}).update(found)
    for kind, found in chosen.get("resources", {}).items():
        for name, fields in found.items():
            whole["resources"][kind][name] |= fields
    if chosen["mode"] == "development":
        begin_names(whole["resources"])
    values = {name: value.get("default") for name, value in whole["variables"].items()}
    values.update(chosen.get("variables", {}))
    known = {
        **whole,
        "var": values,
        "bundle": {**whole["bundle"], "target": target},
        "workspace": {"current_user": {"userName": "ann@example.com"}},
    }
    return dict(replaced(whole, known))


def begin_names(resources: dict[str, Any]) -> None:
    """Names as development mode makes them: what only spells a name, and does not refer to it, misses it."""
    for kind, key, prefix in (
        ("jobs", "name", PREFIX),
        ("alerts", "display_name", PREFIX),
        ("registered_models", "name", UC_PREFIX),
        ("schemas", "name", UC_PREFIX),
    ):
        for fields in resources[kind].values():
            fields[key] = prefix + fields[key]
    for fields in resources["experiments"].values():
        folder, _, name = fields["name"].rpartition("/")
        fields["name"] = f"{folder}/{PREFIX}{name}"


def replaced(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: replaced(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, known) for inner in value]
    if not isinstance(value, str):
        return value
    whole = re.fullmatch(r"\$\{([\w.]+)\}", value)
    if whole:
        return replaced(looked_up(whole[1], known), known)
    return re.sub(r"\$\{([\w.]+)\}", lambda m: str(replaced(looked_up(m[1], known), known)), value)


def looked_up(path: str, known: Mapping[str, Any]) -> Any:
    found: Any = known
    for part in path.split("."):
        assert part in found, f"${{{path}}} refers to nothing"
        found = found[part]
    return found


@pytest.fixture(params=["dev", "prod"])
def deployed(request: pytest.FixtureRequest) -> dict[str, Any]:
    return bundle(request.param)


def job_of(deployed: Mapping[str, Any]) -> dict[str, Any]:
    return dict(deployed["resources"]["jobs"]["nightly"])


def tasks_of(deployed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {task["task_key"]: task for task in job_of(deployed)["tasks"]}


def test_every_field_is_one_of_its_resource(deployed: dict[str, Any]) -> None:
    for kind, found in deployed["resources"].items():
        for name, fields in found.items():
            made = CLASSES[kind].from_dict(fields)
            # What the class does not know raises; what it would drop is seen here.
            assert set(made.as_dict()) == set(fields), (kind, name)
    with pytest.raises(ValueError, match="Unexpected field"):
        Job.from_dict({**job_of(deployed), "retries": 3})


def test_targets_and_what_starts_by_itself() -> None:
    whole = yaml.safe_load((CONF / "databricks.yml").read_text())
    assert set(whole) == BUNDLE_KEYS
    dev, prod = whole["targets"]["dev"], whole["targets"]["prod"]
    assert set(dev) | set(prod) <= TARGET_KEYS
    assert dev["default"] and dev["mode"] == "development"
    assert dev["presets"]["trigger_pause_status"] == "PAUSED"
    assert prod["mode"] == "production" and prod["presets"]["trigger_pause_status"] == "UNPAUSED"
    assert prod["run_as"] and prod["permissions"]
    alerts = [bundle(target)["resources"]["alerts"]["coverage"]["schedule"] for target in ("dev", "prod")]
    assert [alert["pause_status"] for alert in alerts] == ["PAUSED", "UNPAUSED"]
    assert bundle("dev")["resources"]["schemas"]["prune"]["name"] == "dev_ann_prune"
    # The job runs as the service principal, whose the schema is not.
    grants = bundle("prod")["resources"]["schemas"]["prune"]["grants"]
    assert grants[0]["principal"] == bundle("prod")["targets"]["prod"]["run_as"]["service_principal_name"]
    described = [name for name, value in whole["variables"].items() if not value.get("description")]
    assert not described
    text = "".join(file.read_text() for file in [CONF / "databricks.yml", *CONF.glob("resources/*.yml")])
    unused = [name for name in whole["variables"] if f"${{var.{name}}}" not in text]
    assert not unused


def test_tasks_run_what_the_wheel_has(deployed: dict[str, Any]) -> None:
    scripts, name, _ = setup_py()
    parameters = {p["name"]: p["default"] for p in job_of(deployed)["parameters"]}
    for task in tasks_of(deployed).values():
        wheel = task.get("python_wheel_task")
        if wheel is None:
            continue
        assert wheel["package_name"] == name.replace("-", "_")
        assert wheel["entry_point"] in scripts
        arguments = [argument_of(text, parameters) for text in wheel["parameters"]]
        load(ENTRY_POINTS[wheel["entry_point"]], arguments, {})
        libraries = {kind: place for library in task["libraries"] for kind, place in library.items()}
        assert (CONF / "resources" / libraries["requirements"]).is_file()
        # The wheel is made by the deployment.
        built = (CONF / "resources" / libraries["whl"]).resolve()
        artifact = deployed["artifacts"]["wheel"]
        assert (
            built.parent == (CONF / artifact["path"]).resolve() / "dist"
            and (built.parent.parent / "setup.py").exists()
        )
        assert "--wheel-dir dist ." in artifact["build"]
        if wheel["entry_point"] == "train-experts":
            assert "-gpu-ml-" in cluster_of(deployed, task)["spark_version"]


def argument_of(text: str, parameters: Mapping[str, Any]) -> str:
    """A task's argument with the values that a run would have."""
    given = {f"job.parameters.{name}": str(value) for name, value in parameters.items()}
    given |= {"job.run_id": "1"}

    def value(found: re.Match[str]) -> str:
        assert found[1] in given, f"{found[0]} is no value that the job has"
        return given[found[1]]

    out = re.sub(r"\{\{([\w.]+)\}\}", value, text)
    assert "{{" not in out and "${" not in out
    return out


def cluster_of(deployed: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    clusters = {c["job_cluster_key"]: c["new_cluster"] for c in job_of(deployed)["job_clusters"]}
    return dict(clusters[task["job_cluster_key"]])


def test_the_job_is_one_that_can_be_left_alone(deployed: dict[str, Any]) -> None:
    job, tasks = job_of(deployed), tasks_of(deployed)
    assert job["max_concurrent_runs"] == 1
    assert job["email_notifications"]["on_failure"] and job["timeout_seconds"]
    order = list(tasks)
    for key, task in tasks.items():
        # In the file's order no task comes before what it waits for, so there is no circle either.
        needed = [d["task_key"] for d in task.get("depends_on", [])]
        assert all(order.index(n) < order.index(key) for n in needed)
        if "condition_task" not in task:
            assert task["max_retries"] >= 1 and task["timeout_seconds"] <= job["timeout_seconds"]
            assert cluster_of(deployed, task)["data_security_mode"] == "SINGLE_USER"
    # Where none were trained tonight, pruning goes on with the experts that there are; where it failed, not.
    assert tasks["prune"]["run_if"] == "NONE_FAILED"
    assert {"task_key": "training_day", "outcome": "true"} in tasks["train"]["depends_on"]
    used = {task["job_cluster_key"] for task in tasks.values() if "job_cluster_key" in task}
    assert used == {c["job_cluster_key"] for c in job["job_clusters"]}
    experiment = deployed["resources"]["experiments"]["runs"]["name"]
    for cluster in job["job_clusters"]:
        assert cluster["new_cluster"]["spark_env_vars"] == {"MLFLOW_EXPERIMENT_NAME": experiment}


def test_tasks_hand_over_the_same_tables_and_experts(deployed: dict[str, Any]) -> None:
    found = {
        key: dict(
            shlex.split(p.removeprefix("--"))[0].partition("=")[::2]
            for p in task["python_wheel_task"]["parameters"]
        )
        for key, task in tasks_of(deployed).items()
        if "python_wheel_task" in task
    }
    schema = deployed["resources"]["schemas"]["prune"]
    assert found["ingest"]["workspace"] == f"{schema['catalog_name']}.{schema['name']}"
    sessions = f"{found['ingest']['workspace']}.sessions"
    assert found["prune"]["input"] == found["evaluate"]["input"] == sessions
    assert found["train"]["workspace"] == found["ingest"]["workspace"]  # whose `sessions` it reads
    assert found["report"]["output"] == found["prune"]["output"]
    assert found["prune"]["experts"] == f"models:/{found['train']['register-as']}@{found['train']['alias']}"
    model = deployed["resources"]["registered_models"]["experts"]
    assert found["train"]["register-as"] == f"{model['catalog_name']}.{model['schema_name']}.{model['name']}"
    volume = deployed["resources"]["volumes"]["files"]
    folder = f"/Volumes/{volume['catalog_name']}/{volume['schema_name']}/{volume['name']}/"
    places = [found["train"]["output"], found["report"]["path"], found["evaluate"]["document"]]
    places += [found["evaluate"]["workspace"], job_of(deployed)["parameters"][0]["default"]]
    assert all(place.startswith(folder) for place in places)


def test_the_alert_asks_for_columns_that_there_are(deployed: dict[str, Any]) -> None:
    alert = deployed["resources"]["alerts"]["coverage"]
    prune = tasks_of(deployed)["prune"]["python_wheel_task"]["parameters"]
    output = next(p.partition("=")[2] for p in prune if p.startswith("--output="))
    assert f"FROM {output}_runs\n" in alert["query_text"]
    columns = {column.name for column in TABLES["runs"]}
    assert {"item_coverage", "finished_at"} <= columns & set(re.findall(r"\w+", alert["query_text"]))
    assert f"AS {alert['evaluation']['source']['name']}\n" in alert["query_text"]


def test_requirements_are_those_of_the_extras() -> None:
    lines = (CONF / "requirements.txt").read_text().splitlines()
    wanted = {line for line in lines if line and not line.startswith("#")}
    _, _, declared = setup_py()
    # The runtime's own.
    runtime = ("pyspark", "delta-spark", "graphframes-py", "torch")
    theirs = {line for line in declared if not line.startswith(runtime)}
    # What one extra leaves open another bounds.
    narrower = {"numpy": "numpy<2", "pyarrow": "pyarrow<15"}
    theirs = {narrower.get(line, line) for line in theirs}
    assert wanted == theirs


def test_the_notebook_installs_them_beside_the_wheel() -> None:
    cells = json.loads((ROOT / "notebooks" / "05_databricks.ipynb").read_text())["cells"]
    magic, names = [], {"WHEEL": "/Volumes/shop/files/prune.whl"}
    install = next("".join(cell["source"]) for cell in cells if "run_line_magic" in "".join(cell["source"]))
    shell = SimpleNamespace(run_line_magic=lambda *line: magic.append(line))
    library = SimpleNamespace(restartPython=lambda: magic.append("restarted"))
    dbutils = SimpleNamespace(library=library)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DATABRICKS_RUNTIME_VERSION", "16.4")
        exec(compile(install, "cell", "exec"), {**names, "get_ipython": lambda: shell, "dbutils": dbutils})
    asked = "install -r /Volumes/shop/files/requirements.txt /Volumes/shop/files/prune.whl"
    assert magic == [("pip", asked), "restarted"]


def setup_py() -> tuple[set[str], str, set[str]]:
    """Console scripts, name and requirements, less those of development, of setup.py, which is not run."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    lists = {
        node.targets[0].id: set(ast.literal_eval(node.value))
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    call = next(
        node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    scripts = ast.literal_eval(given["entry_points"])["console_scripts"]
    needed = set(ast.literal_eval(given["install_requires"]))
    for name, requirements in lists.items():
        needed |= requirements if name != "DEV" else set()
    return {line.split(" = ")[0] for line in scripts}, ast.literal_eval(given["name"]), needed


def test_no_secret_stands_in_the_bundle() -> None:
    for file in [CONF / "databricks.yml", *CONF.glob("resources/*.yml")]:
        # A key that holds one, or a token of Databricks.
        found = re.search(r"(?im)^[^#\n]*(token|password|secret)\w*:|dapi[0-9a-f]{8}", file.read_text())
        assert found is None, (file.name, found)

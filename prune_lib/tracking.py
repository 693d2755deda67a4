"""Experiment tracking by MLflow, where it is installed; a job never fails because of it.

By default the runs lie in the workspace: a SQLite store (`mlflow.db`) and a folder of artifacts
(`mlruns`); MLFLOW_TRACKING_URI, or a workspace that is not a local folder, leaves the place to
MLflow.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prune_lib.errors import EnvironmentProblem
from prune_lib.locations import on_databricks, workspace_folder
from prune_lib.wording import first_line

__all__ = [
    "RegistryError",
    "Tracker",
    "add_artifact",
    "download_model",
    "register_model",
    "tracked_run",
]

_LOG = logging.getLogger(__name__)

# How MLflow speaks of a server that does not answer.
_UNREACHABLE = "failed with exception"
# By default MLflow asks such a server for four minutes, and waits two for each answer.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
# For the first question, which tells whether there is a server at all.
_AT_FIRST = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
# A server that did not answer is not asked again for so long: each question costs its patience, and an
# evaluation asks a hundred times.
_ASKED_AGAIN_SECONDS = 600
# When the server of a tracking URI last did not answer, and what MLflow said of it.
_silent: dict[str, tuple[float, str]] = {}
# MLflow refuses longer values of parameters, and more than 100 of them in one request.
_LONGEST_VALUE = 6000
_BATCH = 100
# Of a run that registers a model: the folder of its files.
_ARTIFACT = "experts"


class RegistryError(Exception):
    """A model could not be fetched; the text says why, in MLflow's words."""


def download_model(workspace: str, uri: str, folder: Path) -> Path:
    """Fetch what is registered under a `models:/` URI.

    Args:
        workspace: as for `tracked_run`: its store is the registry, unless MLFLOW_TRACKING_URI says otherwise.
        uri: models:/name/version or models:/name@alias.
        folder: an existing folder that the files are written to.

    Returns:
        Where they lie.

    Raises:
        EnvironmentProblem: MLflow is not installed.
        RegistryError: there is no such model, or it cannot be read.
    """
    _quieten()
    try:
        from mlflow import get_registry_uri
        from mlflow.artifacts import download_artifacts
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise EnvironmentProblem(
            f"{uri} names a model of MLflow's registry, and MLflow is not installed. Install it "
            "(pip install 'prune-lib[tracking]'), or give a bundle's folder by --experts."
        ) from error
    try:
        store, _ = _store(workspace)
        client = MlflowClient(tracking_uri=store)
        name, alias, version = _model(uri)
        if alias:
            version = str(client.get_model_version_by_alias(name, alias).version)
        # Unity Catalog lends the rights to a model's files with its name; by their place alone the cluster's
        # own would have to do, and for managed storage it has none. Of a store that is not the environment's
        # own, MLflow would look a name up in the wrong registry.
        if get_registry_uri().startswith(("databricks", "uc:")):
            source = f"models:/{name}/{version}"
        else:
            source = client.get_model_version_download_uri(name, version)
        return Path(download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=store))
    except RegistryError:
        raise
    except Exception as problem:
        raise RegistryError(first_line(problem)) from problem


def add_artifact(workspace: str, experiment: str, run_name: str, path: Path) -> list[str]:
    """Add a file to a run that has ended; to one of its own where MLflow does not know that run.

    Args:
        workspace: as for `tracked_run`.
        experiment: the run's.
        run_name: its name.
        path: the file.

    Returns:
        What MLflow did not take, for the user; nothing where it is not installed.
    """
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        return []
    _quieten()
    silence = _silence()
    if silence:
        return [f"MLflow did not take {path.name}: {silence}"]
    try:
        client = MlflowClient(tracking_uri=_store(workspace)[0])
        with _first_question():
            found = client.get_experiment_by_name(_experiment(experiment))
        where = f"attributes.run_name = '{run_name}'"
        runs = client.search_runs([found.experiment_id], where, max_results=1) if found else []
        if runs:
            client.log_artifact(runs[0].info.run_id, str(path))
            return []
    except Exception as problem:
        return [f"MLflow did not take {path.name}: {first_line(problem)}"]
    with tracked_run(workspace, experiment, run_name, {}) as tracker:
        tracker.artifact(path)
    return tracker.warnings


def register_model(workspace: str, run_id: str | None, folder: Path, name: str, alias: str | None) -> str:
    """Make a folder of a run a new version of a registered model.

    The folder gets a file `MLmodel` in the registry, with the signature and a flavour of our own: there is
    nothing in it that MLflow would unpickle.

    Args:
        workspace: as for `download_model`.
        run_id: MLflow's run, which the files become artifacts of.
        folder: a bundle of experts.
        name: of the model; made where there is none.
        alias: that the version gets.

    Returns:
        Its URI: models:/name/version, or models:/name@alias.

    Raises:
        EnvironmentProblem: MLflow is not installed.
        RegistryError: the registry did not take it.
    """
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.models import Model, ModelSignature
        from mlflow.tracking import MlflowClient
        from mlflow.types import ColSpec, DataType, Schema
        from mlflow.types.schema import Array
    except ImportError as error:
        raise EnvironmentProblem(
            f"The model is to be registered as {name}, and MLflow is not installed. Install it "
            "(pip install 'prune-lib[tracking]'), or leave --register-as out."
        ) from error
    if run_id is None:
        raise RegistryError("MLflow does not track this run (see the warning above)")
    try:
        store, _ = _store(workspace)
        client = MlflowClient(tracking_uri=store)
        signature = ModelSignature(
            inputs=Schema([ColSpec(Array(DataType.string), "items")]),
            outputs=Schema([ColSpec(DataType.double, "difficulty")]),
        )
        about = Model(artifact_path=_ARTIFACT, run_id=run_id, signature=signature)
        about.add_flavor("prune_lib", data=".")
        with tempfile.TemporaryDirectory(prefix="prune-register-") as scratch:
            whole = Path(scratch) / _ARTIFACT
            shutil.copytree(folder, whole)
            about.save(str(whole / "MLmodel"))
            client.log_artifacts(run_id, str(whole), _ARTIFACT)
        with contextlib.suppress(MlflowException):  # there is one of this name, or the next call says why not
            client.create_registered_model(name)
        source = f"{client.get_run(run_id).info.artifact_uri}/{_ARTIFACT}"
        version = client.create_model_version(name, source=source, run_id=run_id).version
        if alias:
            client.set_registered_model_alias(name, alias, version)
    except Exception as problem:
        raise RegistryError(first_line(problem)) from problem
    return f"models:/{name}@{alias}" if alias else f"models:/{name}/{version}"


def _model(uri: str) -> tuple[str, str, str]:
    """Name, alias and version (one of both empty) that a `models:/` URI names.

    >>> _model("models:/experts@champion"), _model("models:/main.shop.experts/3")
    (('experts', 'champion', ''), ('main.shop.experts', '', '3'))
    """
    path = uri.removeprefix("models:/").strip("/")
    name, _, alias = path.partition("@")
    if not alias:
        name, _, version = path.rpartition("/")
        if name and version.isdigit():
            return name, "", version
        # models:/name/champion is how an alias is often written, after MLflow's former stages.
        alias = version
    if not name or not alias:
        raise RegistryError(f"{uri} names no version and no alias")
    return name, alias, ""


class Tracker:
    """A run that is being tracked, or nothing under the same methods.

    Attributes:
        run_id: MLflow's id of the run; None where nothing is tracked.
        warnings: what went wrong with the tracking, for the runs table.
    """

    def __init__(self, client: Any = None, run_id: str | None = None) -> None:
        self.run_id = run_id
        self.warnings: list[str] = []
        self._client = client

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; nested mappings become dotted names."""

        def log(client: Any) -> None:
            from mlflow.entities import Param

            flat = [Param(k, str(v)[:_LONGEST_VALUE]) for k, v in _flat(values)]
            for start in range(0, len(flat), _BATCH):
                client.log_batch(self.run_id, params=flat[start : start + _BATCH])

        self._try("parameters", log)

    def metrics(self, values: Mapping[str, float | int | None], step: int | None = None) -> None:
        """Log numbers, at a step where one is given; None is left out."""

        def log(client: Any) -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            numbers = [Metric(k, float(v), now, step or 0) for k, v in values.items() if v is not None]
            if numbers:
                client.log_batch(self.run_id, metrics=numbers)

        self._try("metrics", log)

    def dict(self, obj: Mapping[str, Any], name: str) -> None:
        """Store a mapping as a JSON or YAML artifact, by the name's ending."""
        self._try(name, lambda client: client.log_dict(self.run_id, dict(obj), name))

    def artifact(self, path: str | os.PathLike[str]) -> None:
        """Store a file, or a folder with what is in it."""

        def log(client: Any) -> None:
            local = Path(path)
            if not local.exists():
                raise FileNotFoundError(f"{local} does not exist")
            if local.is_dir():
                client.log_artifacts(self.run_id, str(local), local.name)
            else:
                client.log_artifact(self.run_id, str(local))

        self._try(str(path), log)

    def _try(self, what: str, log: Callable[[Any], object]) -> None:
        if self._client is None:
            return
        try:
            log(self._client)
        except Exception as problem:
            self._warn(f"MLflow did not take {what}: {first_line(problem)}")
            if _UNREACHABLE in str(problem):
                self._client = None  # it would not take the rest either, after as long a wait

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        _LOG.warning("%s", message)

    def _end(self, status: str) -> None:
        self._try("the end of the run", lambda c: c.set_terminated(self.run_id, status))


@contextmanager
def tracked_run(
    workspace: str, experiment: str, run_name: str, params: Mapping[str, Any]
) -> Iterator[Tracker]:
    """Track what happens inside the block as one MLflow run.

    Args:
        workspace: the workspace; where it is a local folder, the store is in it, unless
            MLFLOW_TRACKING_URI says otherwise.
        experiment: name of the experiment; made where there is none. MLFLOW_EXPERIMENT_NAME wins, and on
            Databricks, where a name is a path of the workspace, it lies under /Shared.
        run_name: name of the run.
        params: the settings; nested mappings become dotted names.

    Yields:
        The tracker. An exception in the block ends the run as FAILED and goes on; one of the
        tracking itself becomes a warning.
    """
    tracker = _start(workspace, experiment, run_name)
    tracker.params(params)
    try:
        yield tracker
    except BaseException as problem:
        tracker._end("KILLED" if isinstance(problem, KeyboardInterrupt) else "FAILED")
        raise
    tracker._end("FINISHED")


def _start(workspace: str, experiment: str, run_name: str) -> Tracker:
    _quieten()
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        _LOG.info("MLflow is not installed: the run is not tracked")
        return Tracker()
    silence = _silence()
    if silence:
        tracker = Tracker()
        tracker._warn(f"MLflow does not track this run: {silence}")
        return tracker
    try:
        store, artifacts = _store(workspace)
        client = MlflowClient(tracking_uri=store)
        experiment = _experiment(experiment)
        with _first_question():
            found = client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else _create(client, experiment, artifacts)
        run = client.create_run(number, run_name=run_name)
    except Exception as problem:
        tracker = Tracker()
        tracker._warn(f"MLflow does not track this run: {first_line(problem)}")
        return tracker
    return Tracker(client, run.info.run_id)


def _quieten() -> None:
    """The store's migrations tell a line each, and so does each attempt to reach a server."""
    for name in ("mlflow", "alembic", "sqlalchemy", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ours = {
        **_PATIENCE,
        # MLflow asks git for a commit that says nothing about the data, and warns where git is absent.
        "GIT_PYTHON_REFRESH": "quiet",
        # It sets its own level when it is imported, after us; the store's first lines would come out.
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        # Of a server it prints the run's address at its end, where --json has its one object.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    for name, value in ours.items():
        os.environ.setdefault(name, value)


@contextmanager
def _first_question() -> Iterator[None]:
    """Within it MLflow waits less, unless the user has said how long; a server's silence is remembered."""
    ours = {name: value for name, value in _AT_FIRST.items() if os.environ.get(name) == _PATIENCE[name]}
    os.environ.update(ours)
    try:
        yield
    except Exception as problem:
        if _UNREACHABLE in str(problem):
            _silent[_server()] = time.monotonic(), first_line(problem)
        raise
    finally:
        os.environ.update({name: _PATIENCE[name] for name in ours})


def _server() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", "")


def _silence() -> str | None:
    """What was said of a server that did not answer a short while ago; None: it may be asked."""
    since, text = _silent.get(_server(), (0.0, ""))
    if not text or time.monotonic() - since > _ASKED_AGAIN_SECONDS:
        return None
    return f"{text} (it was not asked again)"


def _create(client: Any, experiment: str, artifacts: str | None) -> str:
    try:
        return str(client.create_experiment(experiment, artifact_location=artifacts))
    except Exception:
        # Another job may have made it a moment ago.
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise
        return str(found.experiment_id)


def _experiment(name: str) -> str:
    given = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if given:
        return given
    return f"/Shared/{name}" if on_databricks() else name


def _store(workspace: str) -> tuple[str | None, str | None]:
    """Tracking URI and place of the artifacts; None leaves it to MLflow."""
    local = workspace_folder(workspace)
    # A volume of Databricks looks like a folder, and holds no SQLite file.
    if os.environ.get("MLFLOW_TRACKING_URI") or on_databricks() or local is None:
        return None, None
    local = local.absolute()
    local.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{local / 'mlflow.db'}", (local / "mlruns").as_uri()


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

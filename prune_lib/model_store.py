"""Which experts a run uses: those asked for, the workspace's newest for the input, or new ones."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from prune_lib.errors import BundleError, SettingsError
from prune_lib.experts.bundle import Bundle, check_vocabulary
from prune_lib.experts.card import overall
from prune_lib.experts.settings import DYNAMICS, WHERE
from prune_lib.locations import is_location, normalised
from prune_lib.sessions.encoding import Encoded
from prune_lib.sessions.opening import source_of
from prune_lib.sessions.reading import InputTable
from prune_lib.settings import PruneSettings
from prune_lib.settings.train import ExpertsSettings
from prune_lib.stages import Stages
from prune_lib.tracking import RegistryError, download_model, register_model, tracked_run

__all__ = ["ensure_bundle", "find_bundle", "local_folder", "new_folder", "track_training"]

_LOG = logging.getLogger(__name__)


def find_bundle(settings: PruneSettings, source: str) -> Bundle | None:
    """The bundle that a run would use without training.

    Args:
        settings: `experts` names a folder or a registered model; else the workspace is searched for the
            newest bundle that was trained on this input by these settings.
        source: the input's location.

    Raises:
        BundleError: the bundle asked for is missing or damaged, or lacks what the score needs.
        EnvironmentProblem: a registered model was asked for, and MLflow is not installed.
        SettingsError: they are to lie in what is no folder of this machine.
    """
    if settings.experts is not None:
        named = settings.experts.startswith("models:/")
        bundle = _registered(settings) if named else Bundle.load(local_folder(settings.experts))
        if settings.score in DYNAMICS:
            bundle.snapshots(0)
        return bundle
    wanted = settings.wanted_training.model_dump(mode="json", exclude=set(WHERE))
    for folder in _newest_first(_store(settings.workspace)):
        # Its few lines before its hundreds of megabytes.
        if not _serves(folder, source, wanted):
            continue
        try:
            return Bundle.load(folder)
        except BundleError as error:
            _LOG.warning("left out: %s", error)
    return None


def bundle_of_version(workspaces: Sequence[str], version: str) -> Bundle | None:
    """The bundle of a version, wherever in some workspaces it lies; None where it does not.

    Those that are schemas of a catalog have none.
    """
    for workspace in workspaces:
        for folder in _newest_first(_store(workspace)) if is_location(workspace) else ():
            try:
                if (folder / "hash").read_text(encoding="utf-8").startswith(version):
                    return Bundle.load(folder)
            except (OSError, BundleError) as error:
                _LOG.warning("left out: %s", error)
    return None


def _newest_first(store: Path) -> list[Path]:
    """Bundles of a workspace: those that a run has named by its time, then those that somebody named.

    Of the latter the youngest file tells; a name says nothing of its age.
    """
    # A dot begins the name of one that is being written.
    there = [config for config in store.glob("*/config.json") if not config.parent.name.startswith(".")]

    def age(config: Path) -> tuple[str, float, str]:
        name = config.parent.name
        return ("", config.stat().st_mtime, name) if _stamped(name) is None else (name, 0.0, name)

    return [config.parent for config in sorted(there, key=age, reverse=True)]


def _serves(folder: Path, source: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a bundle says that it was trained on an input by some settings."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        # As plain values: a bundle of another version of this project may know other settings.
        made = {k: v for k, v in dict(config.get("settings", {})).items() if k not in WHERE}
        of = str(dict(config.get("input", {})).get("source"))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _LOG.warning("left out: %s is not a bundle of experts: %s", folder, error)
        return False
    if of != source and normalised(of) != normalised(source):
        return False
    others = [key for key in sorted({*made, *wanted}) if made.get(key) != wanted.get(key)]
    if others:
        told = ", ".join(f"{key} {made.get(key)}, not {wanted.get(key)}" for key in others[:3])
        _LOG.info("left out: the experts %s of this input were trained by other settings: %s", folder, told)
    return not others


def ensure_bundle(
    settings: PruneSettings,
    table: InputTable,
    encoded: Encoded,
    stages: Stages,
    found: Bundle | None = None,
) -> Bundle:
    """The bundle for a run; trained now where there is none that fits the input.

    Args:
        settings: of the run.
        table: its input.
        encoded: the same, encoded.
        stages: a training is a stage of them.
        found: what `find_bundle` has found before, so that a registry is asked once a run; None: it looks.

    Raises:
        BundleError: `--experts` names a bundle that is missing, damaged or of another vocabulary.
        SettingsError: experts must be trained and the workspace is not a folder to keep them in.
    """
    bundle = found or find_bundle(settings, source_of(table))
    if bundle is not None:
        try:
            known = encoded.items.selectExpr("cast(item AS STRING) AS item", "interactions").toPandas()
            check_vocabulary(bundle, known["item"].to_numpy(), known["interactions"].to_numpy())
        except BundleError:
            if settings.experts is not None:
                raise
            _LOG.info("the input has outgrown the experts %s: training new ones", bundle.version)
        else:
            _LOG.info("experts %s from %s", bundle.version, bundle.place)
            return bundle
    from prune_lib.experts.training import train_experts

    folder = new_folder(settings.workspace)
    with stages.stage("training") as stage:
        _LOG.info("no experts of this input by these settings: training them into %s", folder)
        bundle = train_experts(encoded, settings.wanted_training, folder, source=source_of(table))
        stage.rows = encoded.n_interactions
    track_training(settings, table, bundle, stages)
    return bundle


_STAMP = "%Y%m%dT%H%M%S%f"


def new_folder(workspace: str) -> Path:
    """Where a workspace keeps a bundle that is trained now; later ones have later names.

    Also where the clock has gone back since the last one: it is by their names that the newest is found.
    """
    store, now = _store(workspace), datetime.now(timezone.utc)
    for last in filter(None, (_stamped(folder.name) for folder in store.glob("*"))):
        now = max(now, last + timedelta(microseconds=1))
    return store / now.strftime(_STAMP)


def _stamped(name: str) -> datetime | None:
    """The time that a bundle's folder is called after; None for a name that somebody gave."""
    try:
        return datetime.strptime(name, _STAMP).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def track_training(
    settings: PruneSettings | ExpertsSettings,
    table: InputTable,
    bundle: Bundle,
    stages: Stages,
    name: str | None = None,
    alias: str | None = None,
) -> str | None:
    """Log a training to MLflow: settings, held-out likelihoods and fairness, the bundle if it is registered.

    Losses by popularity are metrics whose step is the decile, 0 the rarest targets.

    Args:
        settings: the workspace, and how it was trained.
        table: the input.
        bundle: what came out, saved.
        stages: gets the warnings.
        name: register it as a version of this model.
        alias: give this alias to the version.

    Returns:
        The registered model's URI; None where none was asked for.

    Raises:
        BundleError: the registry did not take it.
        EnvironmentProblem: it is to be registered, and MLflow is not installed.
    """
    params = {
        "input": table.location,
        "input_version": table.version,
        "experts_version": bundle.version,
        "folder": str(bundle.path),
        # What it was trained by: a score can ask for more than the settings do.
        **{**settings.training.model_dump(mode="json"), **bundle.config["settings"]},
    }
    registered = None
    with tracked_run(settings.workspace, "train", bundle.version, params) as tracker:
        tracker.metrics(_flat(bundle.metrics))
        tracker.metrics(_flat(overall(bundle.metrics)))
        for fold, metrics in bundle.metrics.items():
            for step, decile in enumerate(metrics.get("fairness", {}).get("deciles", [])):
                tracker.metrics({f"{fold}_by_popularity_{k}": v for k, v in decile.items()}, step=step)
        tracker.dict(dict(bundle.config), "config.json")
        if name is not None:
            assert bundle.path is not None  # it is saved
            try:
                registered = register_model(settings.workspace, tracker.run_id, bundle.path, name, alias)
            except RegistryError as error:
                raise BundleError(
                    f"The experts lie in {bundle.path} and can be used (--experts), but MLflow's registry "
                    f"did not take them as {name}: {error}. Check the name and the rights, and "
                    "MLFLOW_TRACKING_URI where the registry is not the workspace's own."
                ) from error
    stages.warnings.extend(tracker.warnings)
    return registered


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested metrics as one level of numbers.

    >>> _flat({"fold0": {"epochs": 3, "note": "x"}, "mean": 0.5})
    {'fold0_epochs': 3.0, 'mean': 0.5}
    """
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}_")
        elif isinstance(value, int | float):
            flat[f"{prefix}{name}"] = float(value)
    return flat


def _store(workspace: str) -> Path:
    if not is_location(workspace):
        raise SettingsError(
            f"the workspace {workspace} is a schema of the catalog, and trained experts need a folder. Give "
            "a bundle by --experts, or a folder (such as a volume's path) by --workspace."
        )
    return local_folder(workspace) / "experts"


def _registered(settings: PruneSettings) -> Bundle:
    """The bundle that a model of MLflow's registry names: models:/name/version or models:/name@alias."""
    uri = str(settings.experts)
    with tempfile.TemporaryDirectory(prefix="prune-experts-") as folder:
        try:
            # The folder goes with this block: nothing may name it afterwards.
            return replace(
                Bundle.load(download_model(settings.workspace, uri, Path(folder))), path=None, uri=uri
            )
        except RegistryError as error:
            raise BundleError(
                f"--experts {uri} cannot be fetched from MLflow's registry: {error}. Write "
                "models:/name/version or models:/name@alias, and set MLFLOW_TRACKING_URI where the registry "
                "is not the workspace's own."
            ) from error


def local_folder(name: str, flags: str = "--experts or --workspace") -> Path:
    """A folder's path; `file:` URIs are folders too.

    Args:
        name: as it was given.
        flags: by which it is given, for the message.

    Raises:
        SettingsError: it is no folder of this machine.
    """
    if name.startswith("file:"):
        name = "/" + name[len("file:") :].lstrip("/")
    if ":" in name:
        raise SettingsError(
            f"{name} is not a folder of this machine: experts are read from and written to a folder "
            f"(a mounted volume is one). Give it by {flags}."
        )
    return Path(name)

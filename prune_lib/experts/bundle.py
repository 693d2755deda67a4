"""The bundle of trained experts: a folder of weights, configuration, vocabulary and metrics.

    experts-fold{0,1}.safetensors   the three experts' networks and item tables
    gate-fold{0,1}.safetensors      the gate, and the popularity statistics it reads
    snapshots-fold{0,1}.safetensors the experts of every epoch, where they were to be kept
    config.json                     architecture, settings, versions, what it was trained on
    vocabulary.parquet              item STRING, idx INT, sessions BIGINT
    metrics.json                    held-out log-likelihoods and fairness by fold
    hash                            sha256 over the contents of the files above
    README.md                       the model card, made of config.json and metrics.json

Nothing in it is a pickle: opening a bundle runs no code of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prune_lib.errors import BundleError
from prune_lib.experts.card import card_of
from prune_lib.experts.settings import EXPERTS, WHERE, TrainSettings

if TYPE_CHECKING:
    import pandas as pd

    from prune_lib.experts.mixture import Mixture

__all__ = ["Bundle", "check_vocabulary", "strangers"]

#: The format of the folder; raised when an older reader could misread it.
FORMAT = 2
FOLDS = (0, 1)
_WEIGHTS = tuple(f"{kind}-fold{fold}.safetensors" for fold in FOLDS for kind in ("experts", "gate"))
#: The order in which the contents enter the hash.
FILES = ("config.json", "metrics.json", "vocabulary.parquet", *_WEIGHTS)
#: Files that come behind them where there are any.
OPTIONAL = tuple(f"snapshots-fold{fold}.safetensors" for fold in FOLDS)
#: Everything that a bundle's folder holds.
OWN = (*FILES, *OPTIONAL, "hash", "README.md")
# A bundle that is being written, beside its place; what a process that was killed has left of one is removed
# by a later one, when none can still be at work on it.
_SCRATCH = ".prune-bundle-"
_STALE_SECONDS = 3 * 86_400


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory.

    Attributes:
        files: content of every file of FILES by its name, and of OPTIONAL.
        path: the folder that it was read from or saved to last, where there still is one.
        uri: of the registered model that it was fetched as.
    """

    files: Mapping[str, bytes] = field(repr=False)
    path: Path | None = None
    uri: str = ""

    @property
    def place(self) -> str:
        """Where it lies, as people are told."""
        return str(self.path or self.uri or self.version)

    @classmethod
    def build(
        cls,
        *,
        mixtures: Sequence[Mixture],
        settings: TrainSettings,
        vocabulary: pd.DataFrame,
        metrics: Mapping[str, Any],
        described: Mapping[str, Any],
        snapshots: Sequence[bytes | None] = (),
    ) -> Bundle:
        """Make a bundle from what training returns.

        Args:
            mixtures: the frozen mixture of fold 0 and of fold 1.
            settings: how they were trained.
            vocabulary: columns `item`, `idx`, `sessions`; idx dense from 0.
            metrics: by fold; nothing that differs from run to run (such as seconds), as it enters
                the hash.
            described: what it was trained on.
            snapshots: see `dynamics.snapshots_to_bytes`, by fold; none, or None, where they were not kept.
        """
        import torch

        vocabulary = vocabulary.sort_values("idx")
        config = {
            "format": FORMAT,
            "experts": list(EXPERTS),
            "dim": settings.dim,
            "max_length": settings.max_length,
            "n_items": len(vocabulary),
            "settings": settings.model_dump(mode="json", exclude=set(WHERE)),
            "input": dict(described),
            "versions": {"torch": torch.__version__, "numpy": np.__version__},
        }
        files = {
            "config.json": _json(config),
            "metrics.json": _json(metrics),
            "vocabulary.parquet": _vocabulary_parquet(vocabulary),
        }
        for fold, mixture in zip(FOLDS, mixtures, strict=True):
            files[f"experts-fold{fold}.safetensors"], files[f"gate-fold{fold}.safetensors"] = (
                mixture.to_bytes()
            )
        for name, content in zip(OPTIONAL, snapshots, strict=False):
            if content is not None:
                files[name] = content
        return cls(files)

    def save(self, path: str | Path) -> Bundle:
        """Write the bundle to a folder, whole or not at all; a bundle that is there is replaced."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        made = target.parent / f"{_SCRATCH}{uuid.uuid4().hex}"
        former = target.parent / f".prune-former-{target.name}-{uuid.uuid4().hex}"
        made.mkdir()
        try:
            for name in self._names:
                (made / name).write_bytes(self.files[name])
            (made / "hash").write_text(self.hash + "\n")
            (made / "README.md").write_text(card_of(self), encoding="utf-8")
            if target.exists():
                target.rename(former)
            made.rename(target)
        except BaseException:
            if former.exists() and not target.exists():
                former.rename(target)
            raise
        finally:
            _remove(made)
            _remove(former)
        return Bundle(self.files, target)

    @classmethod
    def load(cls, path: str | Path) -> Bundle:
        """Read a bundle and verify its hash.

        Raises:
            BundleError: the folder is no bundle, is damaged, or is of another format.
        """
        folder = Path(path)
        try:
            missing = [name for name in (*FILES, "hash") if not (folder / name).is_file()]
        except OSError as refusal:
            raise BundleError(
                f"The experts of {folder} cannot be read: {refusal.strerror}. See to the rights to that "
                "folder, or give another one by --experts."
            ) from refusal
        if missing:
            raise BundleError(
                f"{folder} is not a bundle of experts: {', '.join(missing)} missing. Give the folder that "
                "training wrote (--experts), or leave --experts out to use or train the workspace's own."
            )
        there = (*FILES, *(name for name in OPTIONAL if (folder / name).is_file()))
        bundle = cls({name: (folder / name).read_bytes() for name in there}, folder)
        stated = (folder / "hash").read_text().strip()
        if bundle.hash != stated:
            raise BundleError(
                f"The bundle of experts {folder} is damaged or was edited: its contents hash to "
                f"{bundle.hash[:12]}, its file `hash` says {stated[:12]!r}. Copy it again from "
                f"where it came, or train the experts anew."
            )
        if bundle.config.get("format") != FORMAT:
            raise BundleError(
                f"The bundle of experts {folder} has format {bundle.config.get('format')!r}; this "
                f"version reads format {FORMAT}. Train the experts anew with this version."
            )
        return bundle

    @cached_property
    def hash(self) -> str:
        """Sha256 over the contents of the files, each with its name and length, in their order."""
        digest = hashlib.sha256()
        for name in self._names:
            content = self.files[name]
            digest.update(f"{name}:{len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()

    @property
    def _names(self) -> tuple[str, ...]:
        return (*FILES, *(name for name in OPTIONAL if name in self.files))

    @property
    def version(self) -> str:
        """First 12 hexadecimal digits of the hash: what tables and logs call the bundle."""
        return self.hash[:12]

    @cached_property
    def config(self) -> dict[str, Any]:
        """Content of config.json."""
        found: dict[str, Any] = json.loads(self.files["config.json"])
        return found

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Content of metrics.json."""
        found: dict[str, Any] = json.loads(self.files["metrics.json"])
        return found

    @property
    def settings(self) -> TrainSettings:
        """The settings it was trained with; where it was trained is not among them."""
        return TrainSettings.model_validate(self.config["settings"])

    @property
    def n_items(self) -> int:
        """Number of items of the vocabulary."""
        return int(self.config["n_items"])

    @property
    def max_length(self) -> int:
        """Longest session that the experts take; of a longer one they take the end."""
        return int(self.config["max_length"])

    @cached_property
    def vocabulary(self) -> pd.DataFrame:
        """Items in the order of their index: `item` STRING, `idx` INT, `sessions` BIGINT."""
        import pyarrow.parquet as pq

        content = io.BytesIO(self.files["vocabulary.parquet"])
        found: pd.DataFrame = pq.read_table(content).to_pandas()
        return found

    def item_index(self, items: Sequence[str] | npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Return the bundle's index of each item (ids as strings), -1 for an unknown item."""
        import pandas as pd

        known = pd.Index(self.vocabulary["item"].to_numpy(dtype=object))
        wanted = np.asarray([str(item) for item in items], dtype=object)
        return np.asarray(known.get_indexer(pd.Index(wanted)), dtype=np.int32)

    def mixture(self, fold: int) -> Mixture:
        """Return the frozen mixture that was trained on a fold, on the CPU."""
        from prune_lib.experts.mixture import Mixture

        return Mixture.from_bytes(*self.weights(fold))

    def weights(self, fold: int) -> tuple[bytes, bytes]:
        """Return the safetensors contents of a fold's experts and gate, to ship to executors."""
        return self.files[f"experts-fold{fold}.safetensors"], self.files[f"gate-fold{fold}.safetensors"]

    def snapshots(self, fold: int) -> bytes:
        """Return the safetensors content of a fold's experts of every epoch.

        Raises:
            BundleError: they were not kept.
        """
        content = self.files.get(OPTIONAL[fold])
        if content is None:
            raise BundleError(
                f"The bundle of experts {self.place} does not hold the experts of every "
                "epoch, which scores over epochs (forgetting, variability) need. Train experts that are kept "
                "so (jobs/train.py --training-snapshots), or leave --experts out."
            )
        return content


def strangers(folder: Path) -> list[str]:
    """What is in a folder that a bundle may not replace; nothing where it is absent, empty or a bundle.

    Raises:
        OSError: it cannot be looked into.
    """
    there = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    return there if "config.json" not in there else [name for name in there if name not in OWN]


def _remove(folder: Path) -> None:
    """Remove a bundle; what somebody has put beside its files stays."""
    for name in OWN:
        with suppress(OSError):
            (folder / name).unlink()
    with suppress(OSError):
        folder.rmdir()


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_SCRATCH}*"):
        with suppress(OSError):  # another does the same
            if time.time() - folder.stat().st_mtime > _STALE_SECONDS:
                _remove(folder)


def check_vocabulary(
    bundle: Bundle,
    items: Sequence[str] | npt.NDArray[Any],
    interactions: npt.NDArray[np.int64],
    *,
    max_unknown: float = 0.05,
) -> npt.NDArray[np.int32]:
    """Map the input's item indices to the bundle's, refusing a bundle made for another vocabulary.

    Args:
        bundle: the experts.
        items: the input's item ids in the order of the input's index.
        interactions: interactions of each of them.
        max_unknown: share of the interactions, at most, whose item the bundle may lack.

    Returns:
        int32 [len(items)]: the bundle's index of each input item, -1 where it lacks the item.

    Raises:
        BundleError: the bundle lacks items that carry more than `max_unknown` of the interactions.
    """
    index = bundle.item_index(items)
    unknown = np.flatnonzero(index < 0)
    share = float(interactions[unknown].sum()) / max(1, int(interactions.sum()))
    if share > max_unknown:
        examples = ", ".join(repr(str(items[i])) for i in unknown[:3])
        raise BundleError(
            f"The bundle of experts {bundle.place} was made for another vocabulary: it "
            f"lacks {len(unknown)} of the input's {len(index)} items (such as {examples}), which carry "
            f"{share:.1%} of the interactions; at most {max_unknown:.0%} may be unknown. Train experts on "
            "this input (leave --experts out), or give the bundle that was trained on it."
        )
    return index


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _vocabulary_parquet(vocabulary: pd.DataFrame) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "item": pa.array([str(item) for item in vocabulary["item"]], pa.string()),
            "idx": pa.array(vocabulary["idx"].to_numpy(), pa.int32()),
            "sessions": pa.array(vocabulary["sessions"].to_numpy(), pa.int64()),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()

"""The evaluation's tables once more, as files beside the document: another machine goes on from them.

Delta tables lie in a workspace, which stays where it was made; the document and its cells are what is
handed on. With these files, what an evaluation adds on another machine joins what is in the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from prune_lib.evaluation.schemas import EVALUATION

__all__ = ["read_beside", "write_beside"]


def _file(document: Path, kind: str) -> Path:
    return document / "cells" / "tables" / f"{kind}.parquet"


def write_beside(frames: Mapping[str, pd.DataFrame], document: Path) -> None:
    """Write the tables, each whole or not at all.

    Args:
        frames: by kind, see `schemas.EVALUATION`.
        document: the folder of the document.
    """
    for kind, frame in frames.items():
        file = _file(document, kind)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        frame.reindex(columns=[c.name for c in EVALUATION[kind]]).to_parquet(
            part, compression="zstd", index=False
        )
        part.replace(file)


def read_beside(document: Path, kind: str) -> pd.DataFrame | None:
    """The table of a kind that lies beside a document; None where there is none."""
    file = _file(document, kind)
    return pd.read_parquet(file) if file.is_file() else None

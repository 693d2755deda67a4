"""What tells versions of the code apart: in a folder as it always was, and in an archive."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from prune_lib.errors import EnvironmentProblem
from prune_lib.experts import code

ROOT = Path(code.__file__).resolve().parents[2]
# What a process says of the code that it imports, without the libraries.
SAID = """
import hashlib
from prune_lib.evaluation.files import code_hash
from prune_lib.experts.code import sources
files = sources()
print(len(files), hashlib.sha256(b"".join(c for _, c in files)).hexdigest(), code_hash())
"""


def said(path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SAID],
        env={**os.environ, "PYTHONPATH": str(path)},
        cwd="/",
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def archive(place: Path, more: bytes = b"") -> Path:
    with zipfile.ZipFile(place, "w") as made:
        for file in sorted((ROOT / "prune_lib").rglob("*.py")):
            inside = file.relative_to(ROOT)
            content = file.read_bytes()
            made.writestr(str(inside), content + more if inside.name == "gating.py" else content)
    return place


def test_an_archive_has_the_hash_of_its_content(tmp_path: Path) -> None:
    """Spark's --py-files: nothing lies beside a module there that a glob would find."""
    here = said(ROOT)
    assert said(archive(tmp_path / "same.zip")) == here
    assert said(archive(tmp_path / "other.zip", b"# changed")) != here


def test_files_come_in_the_order_of_their_paths() -> None:
    """Kept scores and experts are known by hashes over them."""
    files = sorted((ROOT / "prune_lib").rglob("*.py"))
    assert [content for _, content in code.sources()] == [file.read_bytes() for file in files]


def test_scores_hang_on_the_bands_and_the_formula_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")

    def hash_of(changed: tuple[str, ...]) -> str:
        files = [(path, content + b"#" * (path == changed)) for path, content in real]
        monkeypatch.setattr(code, "sources", lambda: files)
        code.code_hash.cache_clear()
        return code.code_hash()

    real = code.sources()
    parts = [("difficulty.py",), ("popularity.py",), ("experts", "loss.py")]
    assert len({hash_of(path) for path in [("none",), *parts]}) == 4
    assert hash_of(("churn.py",)) == hash_of(("none",))
    code.code_hash.cache_clear()


def test_no_file_at_all_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(code, "files", lambda _: tmp_path)
    with pytest.raises(EnvironmentProblem, match="--py-files"):
        code.sources()

"""What is said of known flaws of the pinned packages; above all where nobody could be asked."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from scripts import audit

SKIPPED = '{"dependencies": [{"name": "pip", "skip_reason": "Dependency not found on PyPI"}], "fixes": []}'
CLEAN = '{"dependencies": [{"name": "pip", "version": "24.0", "vulns": []}], "fixes": []}'
FLAWED = (
    '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], '
    '"fix_versions": ["2"]}]}, {"name": "b", "version": "3", "vulns": []}, {"name": "c", '
    '"skip_reason": "?"}]}'
)


def uv(folder: Path, one: str, every: str) -> str:
    """A command that answers for one package, and for all, as pip-audit does."""
    fake = folder / "uv"
    said = {"one": one, "every": every}
    for name, text in said.items():
        (folder / name).write_text(text)
    fake.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/calls\ncase "$*" in *lock.txt) cat {folder}/every; exit 1;; esac\n'
        f"echo 'No known vulnerabilities found' >&2\ncat {folder}/one\n"
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    return str(fake)


@pytest.mark.parametrize("one", [SKIPPED, "", "<html>proxy</html>"])
def test_an_index_that_does_not_know_is_no_clean_bill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], one: str
) -> None:
    """Of packages that it could not audit pip-audit says that no flaw was found, and ends with 0."""
    assert audit.main([uv(tmp_path, one, FLAWED)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert "no package was audited" in line
    assert len((tmp_path / "calls").read_text().splitlines()) == 1, "the others were not asked about"


def test_findings_are_told_and_do_not_fail(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main([uv(tmp_path, CLEAN, FLAWED)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "audit: a 1: PYSEC-1 CVE-1 (fixed in 2)",
        "audit: 1 known flaws in 2 packages; the index does not know 1 more",
    ]


def test_without_the_tool_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["/nowhere/uv"]) == 0
    assert "no package was audited" in capsys.readouterr().out

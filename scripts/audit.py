"""Which known flaws the pinned packages have: `make audit`, which asks the package index by pip-audit.

Findings change by the day, and a mirror may not know of any: neither is an error, both are said.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "lock.txt"
# Asked first and alone: an index that does not know this one knows none, and 200 questions are spared.
KNOWN_TO_ALL = "pip==24.0"


def ask(uv: str, requirements: Path, *more: str) -> dict[str, Any] | None:
    """What pip-audit says of a file of requirements, as it says it in JSON; None where it says nothing.

    Args:
        uv: the command that fetches and runs it.
        requirements: the file; every package pinned.
        more: further flags.
    """
    call = [
        uv,
        "tool",
        "run",
        "--from",
        "pip-audit>=2.9,<3",
        "pip-audit",
        "--disable-pip",
        "--format",
        "json",
    ]
    try:
        done = subprocess.run(
            [*call, "--progress-spinner", "off", *more, "-r", str(requirements)],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return found if isinstance(found, dict) else None


def audited(found: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The packages that the index answered for; of the others pip-audit says that they have no flaw."""
    packages = (found or {}).get("dependencies", [])
    return [package for package in packages if "skip_reason" not in package]


def lines(found: dict[str, Any] | None) -> Iterator[str]:
    """What is to be said of an audit: a line a finding, then how many packages were asked about.

    Args:
        found: of `ask`.
    """
    known = audited(found)
    if found is None or not known:
        yield "audit: no package was audited: the package index does not say which flaws are known"
        return
    flawed = [(package, flaw) for package in known for flaw in package.get("vulns", [])]
    for package, flaw in flawed:
        names = " ".join([flaw["id"], *flaw.get("aliases", [])])
        fixed = ", ".join(flaw.get("fix_versions", [])) or "no version"
        yield f"audit: {package['name']} {package['version']}: {names} (fixed in {fixed})"
    silent = len(found["dependencies"]) - len(known)
    rest = f"; the index does not know {silent} more" if silent else ""
    yield f"audit: {len(flawed)} known flaws in {len(known)} packages{rest}"


def main(argv: Sequence[str]) -> int:
    """Ask about one package, then about all.

    Args:
        argv: the command of uv.
    """
    (uv,) = argv
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder) / "one.txt"
        one.write_text(KNOWN_TO_ALL + "\n")
        found = ask(uv, one, "--no-deps")
    if audited(found):
        found = ask(uv, LOCK, "--require-hashes")
    sys.stdout.write("".join(f"{line}\n" for line in lines(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

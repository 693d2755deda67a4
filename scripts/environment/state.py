"""What of the set-up is done, so that a second run takes no time and a broken one is gone on with.

A step's key is a hash of everything that the step depends on; a step is done when the key noted
after it last succeeded is the key it has now.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path


def key(*parts: str | Path) -> str:
    """A hash of texts, and of the contents of files.

    >>> key("a", "b") == key("ab")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode()
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


class State:
    """The keys of the steps that are done, in a file of the environment itself.

    Deleting the environment deletes it; a file that cannot be read means that nothing is done.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            noted = {}
        self._keys: dict[str, str] = noted if isinstance(noted, dict) else {}

    def is_done(self, step: str, step_key: str) -> bool:
        """Whether a step has succeeded with this key."""
        return self._keys.get(step) == step_key

    def forget(self, step: str) -> None:
        """Notes that a step is under way: interrupted, it is not done, whatever was done before."""
        if self._keys.pop(step, None) is not None:
            self._write()

    def clear(self) -> None:
        """Notes that nothing is done."""
        self._keys = {}
        self._write()

    def note(self, step: str, step_key: str) -> None:
        """Notes that a step has succeeded."""
        self._keys[step] = step_key
        self._write()

    def _write(self) -> None:
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.write_text(json.dumps(self._keys, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.path)

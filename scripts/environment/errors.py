"""What can end a set-up: every message says what, where, and what to do."""

from __future__ import annotations


class SetupError(Exception):
    """Set-up cannot go on; shown to the user as one paragraph, without a trace."""

    exit_code = 1


class MachineError(SetupError):
    """The machine lacks something that only its owner can put right (Java, Python, space)."""

    exit_code = 2

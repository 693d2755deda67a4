"""The errors a user can meet, each saying what is wrong, where, and what to do.

Exit codes: a user's mistake (`UserError` and its children but `AnotherWriter`) ends a job with 2 and one
paragraph, without a stack trace; everything else ends it with 1.
"""

from __future__ import annotations

__all__ = [
    "AnotherWriter",
    "BundleError",
    "EnvironmentProblem",
    "InputError",
    "OutputError",
    "PruneError",
    "SettingsError",
    "UserError",
]


class PruneError(Exception):
    """Base of every error that this project raises on purpose; a failure of the run, exit code 1."""

    exit_code = 1


class UserError(PruneError):
    """A mistake that the user can mend: exit code 2, one paragraph, no stack trace."""

    exit_code = 2


class SettingsError(UserError):
    """A flag, an environment variable or a key of the YAML file is unknown or has a bad value."""


class InputError(UserError):
    """The input table is missing, empty, or its rows cannot be pruned as they are."""


class OutputError(UserError):
    """The output table cannot be written where the user asked for it."""


class AnotherWriter(OutputError):
    """Another run has written to the output meanwhile: nobody's mistake, exit code 1, and a rerun helps."""

    exit_code = 1


class BundleError(UserError):
    """A bundle of experts is missing, damaged, or does not fit the input."""


class EnvironmentProblem(UserError):
    """Something outside the project is missing: a library, a jar, a device."""

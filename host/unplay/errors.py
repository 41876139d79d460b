"""What can go wrong for a user, each with the exit code of the command line.

A message says in one sentence what was wrong, the value, the likely cause and the next step.
Anything else that escapes is a bug (exit code 1).
"""

from __future__ import annotations


class UnplayError(Exception):
    """Root of every error that is the user's to read; `exit_code` is what the command line ends with."""

    exit_code = 1


class BadInputError(UnplayError):
    """A file or an argument cannot be used."""

    exit_code = 2


class ReferenceAbsentError(UnplayError):
    """The reference is not in the recording; `evidence` holds the figures that say so."""

    exit_code = 3

    def __init__(self, message: str, evidence: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.evidence = evidence or {}


class NotConfidentError(UnplayError):
    """The reference is in the recording but could not be removed with confidence."""

    exit_code = 4

    def __init__(self, message: str, evidence: dict[str, float] | None = None) -> None:
        super().__init__(message)
        self.evidence = evidence or {}


class DeviceUnreachableError(UnplayError):
    """There is no device, it refuses, or the link failed; `unplay.board.faults` has the kinds."""

    exit_code = 5


class ValidationError(UnplayError):
    """A device's figures are below their floors."""

    exit_code = 6

"""What can be wrong with a twin: an edit of a caller, or bytes of a peer."""

from __future__ import annotations


class TwinError(Exception):
    """Root of the errors of twins.

    :param reason: a short stable word for metrics and filters (``bad-path``).
    :param detail: a sentence for a person: what was found, where, what was expected.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class EditError(TwinError):
    """An edit cannot be made; nothing of it was."""


class WireError(TwinError):
    """Bytes of a peer or of the disk are not what they should be; nothing of them was merged."""

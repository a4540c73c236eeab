"""Errors of the edge node."""

from streams.errors import HeadwaterError


class SpoolError(HeadwaterError):
    """The spool cannot be read or written; the message says which file and why."""


class SpoolFullError(SpoolError):
    """There is no room, and the lane's policy gives nothing up for it: nothing was stored."""

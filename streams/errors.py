"""The one error tree of Headwater.

Every message names what was wrong, where, and what was expected; where a newcomer is likely
to meet it, it ends with the fix.
"""


class HeadwaterError(Exception):
    """Root of all errors that Headwater raises on purpose."""


class SettingsError(HeadwaterError):
    """The settings cannot be used. The message names file and line of each offence."""


class ServiceError(HeadwaterError):
    """A real server could not be installed, started or reached."""


class DecodeError(HeadwaterError):
    """A payload is not what its topic promised.

    :param reason: a short stable word for metrics and filters (``malformed-json``).
    :param detail: a sentence for a person: what was found, where, what was expected.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class BusyError(HeadwaterError):
    """There is no room for more at the moment; nothing was taken, it may be sent again.

    :param retry_after_s: seconds after which there may be room.
    """

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TopicMismatchError(HeadwaterError):
    """A Kafka topic exists with other settings than Headwater needs."""


class StateError(HeadwaterError):
    """Stored state cannot be read: unknown version, missing chunk, wrong placement."""


class DeliveryError(HeadwaterError):
    """A webhook or sink refused a delivery, or could not be reached."""

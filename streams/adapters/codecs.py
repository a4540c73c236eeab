"""Formats of readings by name: Headwater's own and those of other packages.

A codec turns one payload into rows. It sees nothing but the payload and what is known of its
origin, so the same payload gives the same readings in whatever batch it comes. Whatever a codec
of another package raises or hands over is checked here: a payload that it fails on is refused by
itself, with its bytes, and its neighbours are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from streams.adapters.rows import RowBuilder, Source, check_name, check_t_ms
from streams.core.readings import ABSENT
from streams.errors import DecodeError, SettingsError
from streams.extensions import CODECS, load

OWN = ("json", "number", "senml")
_OWN_TYPES = frozenset(
    ("application/json", "application/senml+json", "application/vnd.apache.arrow.stream")
)


class Rows(Protocol):
    """Where a codec puts readings."""

    def begin(
        self,
        source: Source,
        device: str,
        t_ms: int | None,
        received_ms: int,
        *,
        boot: int = ABSENT,
        seq: int = ABSENT,
    ) -> None:
        """Begin a message: readings that share device, event time (``None``: that of receipt),
        boot and seq.

        :raises DecodeError: if one of them is not what it should be.
        """
        ...

    def add(self, metric: str, value: object) -> None:
        """Add a reading to the message begun last: a number, a boolean, or text where the
        catalogue says so.

        :raises DecodeError: if it cannot be one.
        """
        ...


class Codec(Protocol):
    """A format of readings; an object or a module."""

    @property
    def content_type(self) -> str:
        """Media type that a record of ``readings`` names it by, such as ``application/json``."""
        ...

    def recognises(self, payload: bytes) -> bool:
        """Whether a payload without a known content type is of this format, by its first bytes."""
        ...

    def decode(self, payload: bytes, source: Source, received_ms: int, rows: Rows) -> None:
        """Add the readings of one payload.

        :param source: whose they are; ``device`` is ``None`` only where the mapping leaves it
            to the payload.
        :param received_ms: time of receipt, milliseconds since the epoch.
        :raises DecodeError: if it is not what it should be.
        """
        ...


class Codecs:
    """The codecs that are in use. Those of other packages are loaded when first needed.

    :param recognised: names of codecs beyond our own that payloads are recognised as, in this
        order.
    :raises SettingsError: if one cannot be loaded, or takes a media type that is taken.
    """

    def __init__(self, recognised: Sequence[str] = ()) -> None:
        self._loaded: dict[str, Codec] = {}
        self._recognised = tuple(name for name in recognised if name not in OWN)
        self.by_type: Mapping[bytes, str] = self._types()
        """Media type, in lower case -> name; without our own."""

    def decode(
        self, name: str, payload: bytes, source: Source, received_ms: int, rows: RowBuilder
    ) -> None:
        """Add the readings of one payload to *rows*.

        :raises DecodeError: as the codec does; ``codec-failed`` if it fails in another way.
        """
        codec = self._get(name)
        if name in OWN:
            codec.decode(payload, source, received_ms, rows)
            return
        before = len(rows)
        try:
            codec.decode(payload, source, received_ms, _CheckedRows(rows, source))
        except DecodeError:
            raise
        except Exception as error:
            raise _failed(name, error) from error
        if len(rows) == before:
            raise DecodeError("no-readings", f"the codec {name} found no reading in the payload")

    def recognise(self, payload: bytes) -> str | None:
        """Return the first codec of another package that takes a payload for its own.

        :raises DecodeError: ``codec-failed`` if one fails at that.
        """
        for name in self._recognised:
            try:
                if self._get(name).recognises(payload):
                    return name
            except Exception as error:
                raise _failed(name, error) from error
        return None

    def _get(self, name: str) -> Codec:
        if name not in self._loaded:
            self._loaded[name] = load(CODECS, name)
        return self._loaded[name]

    def _types(self) -> dict[bytes, str]:
        types: dict[bytes, str] = {}
        for name in self._recognised:
            kind = self._get(name).content_type.strip().lower()
            if kind in _OWN_TYPES or kind.encode() in types:
                raise SettingsError(f"codecs: {name} takes {kind}, which is another codec's")
            types[kind.encode()] = name
        return types


def _failed(name: str, error: Exception) -> DecodeError:
    return DecodeError(
        "codec-failed", f"the codec {name}: {type(error).__name__}: {str(error)[:200]}"
    )


class _CheckedRows:
    """Rows of a codec that is not ours."""

    def __init__(self, rows: RowBuilder, source: Source) -> None:
        self._rows = rows
        self._source = source
        self._begun = False

    def begin(
        self,
        source: Source,
        device: str,
        t_ms: int | None,
        received_ms: int,
        *,
        boot: int = ABSENT,
        seq: int = ABSENT,
    ) -> None:
        if source is not self._source:
            raise DecodeError("codec-failed", "rows belong to the source that the codec was given")
        if self._source.device not in (None, device):
            raise DecodeError(
                "wrong-device", f"the payload names {device!r:.60}, its record or topic another"
            )
        if type(device) is not str:
            raise DecodeError("bad-name", f"the device is a {type(device).__name__}")
        for name, number in (("boot", boot), ("seq", seq)):
            if type(number) is not int or not ABSENT <= number < 2**63:
                raise DecodeError("bad-seq", f"{name} is {number!r:.40}; expected 0 to 2^63-1")
        if t_ms is not None:
            if type(t_ms) is not int:
                raise DecodeError("bad-time", f"t_ms is a {type(t_ms).__name__}; expected an int")
            check_t_ms(t_ms, t_ms)
        name = check_name("device", device)
        self._rows.begin(source, name, t_ms, int(received_ms), boot=boot, seq=seq)
        self._begun = True

    def add(self, metric: str, value: object) -> None:
        if not self._begun:
            raise DecodeError("codec-failed", "the codec adds a reading before it begins a message")
        if type(metric) is not str:
            raise DecodeError("bad-name", f"the metric is a {type(metric).__name__}")
        self._rows.add(metric, value)

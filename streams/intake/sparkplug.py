"""A host of Sparkplug B nodes (Sparkplug specification 3.0): births, data and deaths in, rows out.

Group, node and device are tenant, site and device; what a node tells of itself is the device of the
node's name. Beside its metrics a device has ``sparkplug.online``: 1 from birth, 0 from death.

A birth names every metric with its type, and mostly an alias that stands for the name from then on.
So data is readable only for who has heard the birth: where it was missed, or a number of the node's
sequence (0 to 255, over all of its messages) was, the host asks for rebirth. Values of a message
whose number shows a gap are taken all the same. Pure; the caller sends what is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.adapters.rows import RowBuilder, Source, check_name, check_t_ms
from streams.adapters.sparkplug_payload import BD_SEQ, TEXTS, Metric, Payload, decode, signed
from streams.errors import DecodeError

NAMESPACE = "spBv1.0"
ONLINE = "sparkplug.online"
_CONTROLS = ("Node Control/", "Device Control/", "Node Info/", "Device Info/", "Properties/")
_ASK_AGAIN_MS = 10_000
_READABLE = 15
"""Greatest number of a type that can be a reading; above are data sets, templates, arrays."""


def filters(groups: Sequence[str]) -> list[str]:
    """Return the topic filters of groups."""
    return [f"{NAMESPACE}/{group}/#" for group in groups]


def command_topic(group: str, node: str) -> str:
    """Return the topic of commands to a node."""
    return f"{NAMESPACE}/{group}/NCMD/{node}"


@dataclass(frozen=True, slots=True)
class _Topic:
    group: str
    kind: str
    node: str
    device: str
    """The node itself where the topic names none."""


@dataclass(slots=True)
class _Node:
    """What is known since the birth of a node."""

    bd_seq: int | None = None
    next_seq: int | None = None
    """``None``: no birth was heard, or a number was missed since."""
    metrics: dict[str, dict[int | str, tuple[str, int | None]]] = field(default_factory=dict)
    """Device -> alias or name -> name and type."""
    asked_ms: int | None = None

    @property
    def known(self) -> int:
        return sum(map(len, self.metrics.values()))


class SparkplugHost:
    """The state of all nodes of some groups, as far as it was heard."""

    def __init__(self, max_metrics: int) -> None:
        """Make a host that has heard nothing.

        :param max_metrics: names and aliases that are remembered; births beyond it are refused.
        """
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._max_metrics = max_metrics

    def receive(
        self, topic: str, payload: bytes, received_ms: int, rows: RowBuilder
    ) -> tuple[str, str] | None:
        """Take a message; its readings go to *rows*.

        :returns: the group and node to ask for rebirth, if any.
        :raises DecodeError: if it cannot be read; ``unknown-alias`` if its birth was not heard.
            What it added to *rows* is to be rolled back; :meth:`wants_rebirth` says whom to ask.
        """
        found = _parse(topic)
        if found is None:
            return None
        content = decode(payload)
        node = self._node(found)
        if found.kind in ("NBIRTH", "DBIRTH"):
            self._birth(node, found, content)
        if found.kind == "NDEATH":
            self._node_death(node, found, content, received_ms, rows)
            return None
        self._count(node, found, content)
        if found.kind == "DDEATH":
            _online(found, found.device, None, received_ms, rows, is_online=False)
            node.metrics.pop(found.device, None)
        else:
            if found.kind in ("NBIRTH", "DBIRTH"):
                _online(found, found.device, content.t_ms, received_ms, rows, is_online=True)
            self._values(node, found, content, received_ms, rows)
        return self.wants_rebirth(topic, received_ms)

    def wants_rebirth(self, topic: str, now_ms: int) -> tuple[str, str] | None:
        """Return the group and node to ask for rebirth: not heard whole, and not asked lately."""
        found = _parse(topic)
        if found is None:
            return None
        node = self._node(found)
        if node.next_seq is not None:
            return None
        if node.asked_ms is not None and now_ms - node.asked_ms < _ASK_AGAIN_MS:
            return None
        node.asked_ms = now_ms
        return found.group, found.node

    def _node(self, topic: _Topic) -> _Node:
        key = topic.group, topic.node
        if key not in self._nodes:
            if len(self._nodes) >= self._max_metrics:
                self._nodes.clear()  # they are asked for rebirth
            self._nodes[key] = _Node()
        return self._nodes[key]

    def _birth(self, node: _Node, topic: _Topic, content: Payload) -> None:
        if topic.kind == "NBIRTH":
            node.metrics.clear()
            node.bd_seq = _bd_seq(content)
            node.next_seq = None if content.seq is None else content.seq % 256
            node.asked_ms = None
        else:
            node.metrics.pop(topic.device, None)
        room = self._max_metrics - sum(each.known for each in self._nodes.values())
        if 2 * len(content.metrics) > room:
            raise DecodeError(
                "too-many-metrics",
                f"the birth of {topic.device[:60]} has {len(content.metrics)} metrics; of "
                f"{self._max_metrics} names and aliases {room} are free "
                "(gateway.sparkplug_max_metrics)",
            )
        known = node.metrics.setdefault(topic.device, {})
        for metric in content.metrics:
            if metric.name is not None:
                known[metric.name] = metric.name, metric.datatype
                if metric.alias is not None:
                    known[metric.alias] = metric.name, metric.datatype

    def _count(self, node: _Node, topic: _Topic, content: Payload) -> None:
        if node.next_seq is None or content.seq is None:
            return
        is_next = content.seq == node.next_seq
        node.next_seq = (content.seq + 1) % 256 if is_next or topic.kind == "NBIRTH" else None

    def _node_death(
        self, node: _Node, topic: _Topic, content: Payload, received_ms: int, rows: RowBuilder
    ) -> None:
        # The will of a connection before the present one says nothing of this one.
        if node.bd_seq is not None and _bd_seq(content) not in (None, node.bd_seq):
            return
        for device in dict.fromkeys([*node.metrics, topic.node]):
            _online(topic, device, None, received_ms, rows, is_online=False)
        node.metrics.clear()
        node.next_seq = None
        # It says itself when it is back.
        node.asked_ms = received_ms

    def _values(
        self, node: _Node, topic: _Topic, content: Payload, received_ms: int, rows: RowBuilder
    ) -> None:
        known = node.metrics.get(topic.device, {})
        source = _source(topic)
        began: int | None = -1
        for metric in content.metrics:
            name, datatype = _resolve(metric, known, topic)
            value = metric.value
            if value is None or name == BD_SEQ or name.startswith(_CONTROLS):
                continue
            if datatype is not None and datatype > _READABLE:
                continue
            if isinstance(value, str) and (datatype not in TEXTS or not rows.is_text(name)):
                continue
            if type(value) is int:
                value = signed(value, datatype)
            t_ms = metric.t_ms if metric.t_ms is not None else content.t_ms
            if began == -1 or t_ms != began:
                if t_ms is not None:
                    check_t_ms(t_ms, t_ms)
                rows.begin(source, topic.device, t_ms, received_ms)
                began = t_ms
            rows.add(name, value)


def _parse(topic: str) -> _Topic | None:
    """Read a topic; ``None`` if it is of another kind: commands, states of hosts."""
    levels = topic.split("/")
    if len(levels) not in (4, 5) or levels[0] != NAMESPACE:
        return None
    _, group, kind, node, *device = levels
    wanted = ("DBIRTH", "DDATA", "DDEATH") if device else ("NBIRTH", "NDATA", "NDEATH")
    return _Topic(group, kind, node, device[0] if device else node) if kind in wanted else None


def _source(topic: _Topic) -> Source:
    return Source(
        check_name("tenant", topic.group),
        check_name("site", topic.node),
        check_name("device", topic.device),
        None,
    )


def _online(
    topic: _Topic,
    device: str,
    t_ms: int | None,
    received_ms: int,
    rows: RowBuilder,
    *,
    is_online: bool,
) -> None:
    if t_ms is not None:
        check_t_ms(t_ms, t_ms)
    rows.begin(_source(topic), check_name("device", device), t_ms, received_ms)
    rows.add(ONLINE, is_online)


def _bd_seq(content: Payload) -> int | None:
    for metric in content.metrics:
        if metric.name == BD_SEQ and type(metric.value) is int:
            return metric.value
    return None


def _resolve(
    metric: Metric, known: dict[int | str, tuple[str, int | None]], topic: _Topic
) -> tuple[str, int | None]:
    key = metric.name if metric.name is not None else metric.alias
    if key is None:
        raise DecodeError("malformed-sparkplug", "a metric has neither name nor alias")
    found = known.get(key)
    if found is None:
        if metric.name is None:
            raise DecodeError(
                "unknown-alias",
                f"alias {metric.alias} of {topic.device[:60]!r}: its birth was not heard here",
            )
        return metric.name, metric.datatype
    name, datatype = found
    return name, metric.datatype if metric.datatype is not None else datatype

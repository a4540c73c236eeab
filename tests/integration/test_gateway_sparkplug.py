"""A Sparkplug node and a gateway that hears it, loses its memory, and asks for rebirth."""

from __future__ import annotations

from pathlib import Path

from streams.adapters.sparkplug_payload import REBIRTH, DataType, Metric, Payload, decode, encode
from streams.intake.sparkplug import command_topic
from tests.integration.gateway_child import gateway, publisher, reader, unique
from tests.waiting import PATIENCE_S, eventually, eventually_async


async def test_a_node_is_heard_again_after_the_gateway_has_forgotten_its_birth(
    kafka: str, mqtt: str, tmp_path: Path
) -> None:
    group = unique("plant")
    arrived = await reader(kafka)
    asked: list[bytes] = []
    with (
        gateway(kafka, mqtt, tmp_path, f'[gateway]\nsparkplug = ["{group}"]\n') as child,
        publisher(mqtt) as client,
    ):
        client.on_message = lambda _c, _d, message: asked.append(message.payload)
        client.subscribe(command_topic(group, "line"), qos=1)

        def send(kind: str, seq: int, *metrics: Metric) -> None:
            topic, payload = f"spBv1.0/{group}/{kind}/line", encode(Payload(None, seq, metrics))
            client.publish(topic, payload, qos=1).wait_for_publish(PATIENCE_S)

        def birth(value: float) -> None:
            send("NBIRTH", 0, Metric("load", 1, DataType.DOUBLE, None, value))

        birth(0.5)
        send("NDATA", 1, Metric(None, 1, None, None, 0.75))
        eventually(lambda: child.metric("sparkplug_messages_total") == 2)
        assert not asked
        # A kill may leave the birth unconfirmed at the broker, which would give it again.
        assert child.stop() == 0
        child.start()
        send("NDATA", 2, Metric(None, 1, None, None, 0.8))
        eventually(lambda: asked)
        assert decode(asked[0]).metrics[0].name == REBIRTH
        birth(0.9)

        refused = f"spBv1.0/{group}/NDATA/line"

        async def found() -> bool:
            await arrived.read()
            return 0.9 in arrived.of("line") and bool(arrived.refusals(refused))

        await eventually_async(found)
        (refusal,) = arrived.refusals(refused)
    values = arrived.of("line")
    assert sorted(set(values)) == [0.5, 0.75, 0.9, 1.0]
    assert refusal[0]["hw-reason"] == b"unknown-alias"
    assert refusal[0]["hw-tenant"] == group.encode()
    await arrived.consumer.stop()

"""The connections to all brokers, as one. Brokers know nothing of one another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from streams.gateway.link import Delivery, Link, Session


class Links:
    """One :class:`Link` per broker; a delivery's ``origin`` says by which it came."""

    def __init__(
        self,
        session: Session,
        addresses: Sequence[str],
        on_messages: Callable[[list[Delivery]], None],
        is_copy: Callable[[str, list[int]], bool],
    ) -> None:
        """Make unconnected links.

        :param session: what all have in common.
        :param addresses: of the brokers, at least one, the main one first.
        :raises SettingsError: if an address or a file of the login cannot be used.
        """
        self._links = [
            Link(_at(session, origin, address), on_messages, is_copy)
            for origin, address in enumerate(addresses)
        ]

    async def run(self) -> None:
        """Keep connected until cancelled."""
        async with asyncio.TaskGroup() as group:
            for link in self._links:
                group.create_task(link.run())

    @property
    def why_not_ready(self) -> str:
        """Why no broker is there; nothing while one is."""
        troubles = self.troubles
        return "; ".join(troubles) if len(troubles) == len(self._links) else ""

    @property
    def troubles(self) -> list[str]:
        """What is the matter with each broker that is not there."""
        return [link.why_not_ready for link in self._links if link.why_not_ready]

    @property
    def subscribed(self) -> bool:
        """Whether all brokers that are there have confirmed all subscriptions, one at least."""
        there = [link for link in self._links if link.connected]
        return bool(there) and all(link.subscribed for link in there)

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge deliveries, in order; those of old connections are left out."""
        if len(self._links) == 1:
            self._links[0].ack([(one.epoch, one.mid) for one in deliveries])
            return
        for origin, link in enumerate(self._links):
            link.ack([(one.epoch, one.mid) for one in deliveries if one.origin == origin])

    def publish(self, origin: int, topic: str, payload: bytes, expiry_s: int) -> bool:
        """Send by one broker; as :meth:`Link.publish`."""
        return self._links[origin].publish(topic, payload, expiry_s)

    def pause(self) -> None:
        """Read no more."""
        for link in self._links:
            link.pause()

    def resume(self) -> None:
        """Read again."""
        for link in self._links:
            link.resume()

    def change_filters(self, filters: Sequence[tuple[str, int]]) -> None:
        """Subscribe to what is new, everywhere."""
        for link in self._links:
            link.change_filters(filters)

    def unsubscribe(self, filters: Sequence[str]) -> None:
        """Have no more messages of some filters, from anywhere."""
        for link in self._links:
            link.unsubscribe(filters)

    def disconnect(self) -> None:
        """Say good-bye; the brokers keep the sessions."""
        for link in self._links:
            link.disconnect()


def _at(session: Session, origin: int, address: str) -> Session:
    # Two addresses may lead to one broker, which knows a client by its id.
    client_id = session.client_id if not origin else f"{session.client_id}-{origin}"
    return replace(session, address=address, origin=origin, client_id=client_id)

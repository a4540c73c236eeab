"""The uplink: batches go up, and leave the spool when the gateway says that Kafka has them.

``pace`` and ``window`` decide, without I/O or a clock: what goes next, how large, when it is sent
again. ``pump`` does it over MQTT.
"""

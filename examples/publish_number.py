"""Publish a temperature as a bare number, once a second."""

import time

import paho.mqtt.client as mqtt

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.connect("localhost", 1883)
client.loop_start()
while True:
    client.publish("sensors/temperature", 22.5)
    time.sleep(1)

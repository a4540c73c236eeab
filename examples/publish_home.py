"""Publish the temperature and humidity of a home, once a second."""

import json
import time

import paho.mqtt.client as mqtt

client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.connect("localhost", 1883)
client.loop_start()
while True:
    client.publish("home/sensors", json.dumps({"temperature": 22.5, "humidity": 45}))
    time.sleep(1)

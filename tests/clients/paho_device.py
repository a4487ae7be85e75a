"""A device's whole day with paho-mqtt, which knows nothing of TR50: log in, publish everything, move a
file, hear of its own server topics, and run methods until one says stop.

    paho_device.py HOST MQTT_PORT HTTP_PORT THING_KEY TOKEN

Prints `ready` when it waits for methods, and ends with 0 after the method `stop`. Whatever goes wrong ends it
with a traceback.
"""

import http.client
import json
import queue
import sys
import zlib

import paho.mqtt.client as mqtt

WAIT_S = 20


class Device:
    """One connection, with the replies by their topics and everything else in a queue."""

    def __init__(self, host, port, key, token):
        self.replies = {}
        self.pushed = queue.Queue()
        self.number = 0
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho-app")
        self.client.username_pw_set(key, token)
        self.client.on_message = self.on_message
        connected = queue.Queue()
        self.client.on_connect = lambda *args: connected.put(args[3])
        self.subscribed = queue.Queue()
        self.client.on_subscribe = lambda *args: self.subscribed.put(args[3])
        self.client.connect(host, port)
        self.client.loop_start()
        code = connected.get(timeout=WAIT_S)
        assert code == 0, f"refused: {code}"

    def on_message(self, _client, _data, message):
        waiting = self.replies.get(message.topic)
        if waiting is not None:
            waiting.put(message.payload)
        else:
            self.pushed.put((message.topic, message.payload.decode()))

    def reply(self, command, **params):
        """The reply to a command; nobody subscribed to its topic."""
        self.number += 1
        answer = queue.Queue()
        self.replies[f"reply/{self.number:04}"] = answer
        request = {"cmd": {"command": command, "params": params}}
        self.client.publish(f"api/{self.number:04}", json.dumps(request), qos=1)
        reply = json.loads(answer.get(timeout=WAIT_S))
        assert list(reply) == ["cmd"], reply
        return reply["cmd"]

    def call(self, command, **params):
        reply = self.reply(command, **params)
        assert reply["success"] is True, f"{command} {params}: {reply}"
        return reply.get("params")

    def publish_everything(self):
        self.call("property.publish", key="temperature", value=21.5)
        rows = [{"key": "temperature", "value": 22 + n} for n in range(10)]
        self.call("property.batch", data=rows)
        assert self.call("property.current", key="temperature")["value"] == 31
        self.call("alarm.publish", key="blade", state=1, msg="stuck")
        self.call("attribute.publish", key="model", value="M-1")
        self.call("location.publish", lat=45.35, lng="-75.92", fixType="gps")
        self.call("log.publish", msg="good morning")
        missing = self.reply("property.current", key="never")
        assert missing["errorCodes"] == [-90008], missing

    def move_a_file(self, host, port):
        content = bytes(range(256)) * 1000
        crc = zlib.crc32(content)
        ticket = self.call("file.put", fileName="map.bin", crc32=crc)
        connection = http.client.HTTPConnection(host, port, timeout=WAIT_S)
        connection.request("POST", f"/file/{ticket['fileId']}", body=content)
        assert connection.getresponse().read() is not None
        found = self.call("file.get", fileName="map.bin")
        assert (found["crc32"], found["fileSize"]) == (crc, len(content)), found
        connection = http.client.HTTPConnection(host, port, timeout=WAIT_S)
        connection.request("GET", f"/file/{found['fileId']}")
        response = connection.getresponse()
        assert response.status == 200, response.status
        assert response.read() == content

    def hear_of_itself(self, key):
        topic = f"thing/{key}/property/humidity"
        self.client.subscribe(topic, qos=1)
        assert not self.subscribed.get(timeout=WAIT_S)[0].is_failure
        self.client.publish("thing/self/property/humidity", "55.5", qos=1)
        heard = self.pushed.get(timeout=WAIT_S)
        assert heard == (topic, "55.5"), heard
        assert self.call("property.current", key="humidity")["value"] == 55.5

    def run_methods(self, key):
        while True:
            topic, notice = self.pushed.get(timeout=WAIT_S)
            assert topic == "notify/mailbox_activity", topic
            assert json.loads(notice)["thingKey"] == key, notice
            for mail in self.call("mailbox.check")["messages"]:
                if self.answer(mail):
                    return

    def answer(self, mail):
        """Runs a method; true when it was the last."""
        method, params = mail["params"]["method"], mail["params"].get("params", {})
        self.call("mailbox.update", id=mail["id"], msg="begun")
        if method == "add":
            total = sum(params["numbers"])
            self.call("mailbox.ack", id=mail["id"], params={"sum": total})
        elif method == "stop":
            self.call("mailbox.ack", id=mail["id"])
        else:
            self.call("mailbox.ack", id=mail["id"], errorCode=19, errorMessage="fail and such")
        return method == "stop"


def main():
    host, mqtt_port, http_port, key, token = sys.argv[1:]
    device = Device(host, int(mqtt_port), key, token)
    device.publish_everything()
    device.move_a_file(host, int(http_port))
    device.hear_of_itself(key)
    print("ready", flush=True)
    device.run_methods(key)
    device.client.disconnect()
    device.client.loop_stop()


main()

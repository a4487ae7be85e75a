"""What an application does with gmqtt: every QoS, a refused filter, retained messages, a session that is
kept. Prints `done`.

    gmqtt_day.py HOST PORT USER PASSWORD 3|5 [mortal]

With `mortal` it connects with a will, prints `ready`, and waits to be killed.
"""

import asyncio
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

HOST, PORT, USER, PASSWORD, VERSION = sys.argv[1:6]
PROTOCOL = MQTTv50 if VERSION == "5" else MQTTv311
BASE = f"day/gmqtt/{VERSION}"
WAIT_S = 20


class One:
    """A client whose events are queues."""

    def __init__(self, identifier, keep=False, **more):
        if VERSION == "5" and keep:
            more["session_expiry_interval"] = 3600
        identifier = f"gmqtt-{identifier}-{VERSION}"
        self.client = gmqtt.Client(identifier, clean_session=not keep, **more)
        self.client.set_auth_credentials(USER, PASSWORD)
        self.granted, self.messages = asyncio.Queue(), asyncio.Queue()
        self.client.on_subscribe = lambda _client, _mid, qos, _properties: self.granted.put_nowait(qos)
        self.client.on_message = self.on_message

    def on_message(self, _client, topic, payload, qos, properties):
        self.messages.put_nowait((topic, payload.decode(), qos, bool(properties["retain"])))
        return 0

    async def __aenter__(self):
        await self.client.connect(HOST, int(PORT), version=PROTOCOL)
        return self

    async def __aexit__(self, *_):
        await self.client.disconnect()

    async def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos=qos)
        return (await asyncio.wait_for(self.granted.get(), WAIT_S))[0]

    async def next(self):
        return await asyncio.wait_for(self.messages.get(), WAIT_S)


async def day():
    async with One("a") as one:
        for qos in range(3):
            assert await one.subscribe(f"{BASE}/{qos}", qos) == qos
            one.client.publish(f"{BASE}/{qos}", f"with {qos}", qos=qos)
            assert await one.next() == (f"{BASE}/{qos}", f"with {qos}", qos, False)
        assert await one.subscribe("api/#", 1) >= 0x80
        one.client.publish(f"{BASE}/kept", "old", qos=1, retain=True)
        async with One("late") as late:
            # The first may be live or retained; it is the same message.
            await late.subscribe(f"{BASE}/kept", 2)
            assert (await late.next())[:3] == (f"{BASE}/kept", "old", 1)
        async with One("later") as later:
            await later.subscribe(f"{BASE}/kept", 2)
            assert await later.next() == (f"{BASE}/kept", "old", 1, True)
            one.client.publish(f"{BASE}/kept", "", qos=1, retain=True)
            assert await later.next() == (f"{BASE}/kept", "", 1, False)
        async with One("kept", keep=True) as kept:
            await kept.subscribe(f"{BASE}/missed", 2)
        assert await one.subscribe(f"{BASE}/missed", 2) == 2
        for qos in (1, 2):
            one.client.publish(f"{BASE}/missed", f"with {qos}", qos=qos)
            await one.next()
        async with One("kept", keep=True) as kept:
            for qos in (1, 2):
                assert await kept.next() == (f"{BASE}/missed", f"with {qos}", qos, False)
    async with One("kept"):
        pass


async def mortal():
    async with One("mortal", will_message=gmqtt.Message(f"{BASE}/will", "gone", qos=1)):
        print("ready", flush=True)
        await asyncio.sleep(60)


asyncio.run(asyncio.wait_for((mortal if sys.argv[6:] else day)(), 60))
print("done")

"""What an application does with aiomqtt: every QoS, a refused filter, retained messages, a session that is
kept. Prints `done`.

    aiomqtt_day.py HOST PORT USER PASSWORD 3|5 [mortal]

With `mortal` it connects with a will, prints `ready`, and waits to be killed.
"""

import asyncio
import sys

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT, USER, PASSWORD, VERSION = sys.argv[1:6]
FIVE = VERSION == "5"
BASE = f"day/aiomqtt/{VERSION}"


def client(identifier, keep=False, **more):
    if FIVE:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600 if keep else 0
        more |= {"protocol": aiomqtt.ProtocolVersion.V5, "properties": properties, "clean_start": not keep}
    else:
        more |= {"protocol": aiomqtt.ProtocolVersion.V311, "clean_session": not keep}
    login = {"username": USER, "password": PASSWORD, "identifier": f"aiomqtt-{identifier}-{VERSION}"}
    return aiomqtt.Client(HOST, int(PORT), timeout=20, **login, **more)


async def take(one, count):
    """So many messages: topic, payload, QoS, retain flag."""
    got = []
    async for message in one.messages:
        got.append((str(message.topic), message.payload.decode(), message.qos, message.retain))
        if len(got) == count:
            return got


async def day():
    async with client("a") as one:
        for qos in range(3):
            granted = await one.subscribe(f"{BASE}/{qos}", qos=qos)
            assert getattr(granted[0], "value", granted[0]) == qos, granted
            await one.publish(f"{BASE}/{qos}", f"with {qos}", qos=qos)
            assert await take(one, 1) == [(f"{BASE}/{qos}", f"with {qos}", qos, False)]
        refused = (await one.subscribe("api/#", qos=1))[0]
        assert getattr(refused, "value", refused) >= 0x80, refused
        await one.publish(f"{BASE}/kept", "old", qos=1, retain=True)
        await one.subscribe(f"{BASE}/+", qos=2)
        assert await take(one, 1) == [(f"{BASE}/kept", "old", 1, True)]
        await one.publish(f"{BASE}/kept", "", qos=1, retain=True)
        assert await take(one, 1) == [(f"{BASE}/kept", "", 1, False)]
        async with client("kept", keep=True) as kept:
            await kept.subscribe(f"{BASE}/missed", qos=2)
        for qos in (1, 2):
            await one.publish(f"{BASE}/missed", f"with {qos}", qos=qos)
        async with client("kept", keep=True) as kept:
            expected = [(f"{BASE}/missed", f"with {qos}", qos, False) for qos in (1, 2)]
            assert await take(kept, 2) == expected
    async with client("kept"):
        pass


async def mortal():
    will = aiomqtt.Will(f"{BASE}/will", "gone", qos=1)
    async with client("mortal", will=will):
        print("ready", flush=True)
        await asyncio.sleep(60)


asyncio.run(asyncio.wait_for((mortal if sys.argv[6:] else day)(), 60))
print("done")

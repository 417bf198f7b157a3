"""A caller with the `websockets` library: client.py URL [CA]. Goes through all that a WebSocket can do and ends with 0 if it was
done as the library's own server does it."""

import asyncio
import os
import ssl
import sys

import websockets

BASE = sys.argv[1]
TLS = ssl.create_default_context(cafile=sys.argv[2]) if len(sys.argv) > 2 else None


def connect(kind, **more):
    options = dict(ssl=TLS, max_size=None, ping_interval=None, open_timeout=20)
    return websockets.connect(f"{BASE}/{kind}", **{**options, **more})


async def closed(ws):
    """How the other side closed."""
    try:
        await asyncio.wait_for(ws.recv(), 20)
    except websockets.ConnectionClosed:
        return ws.close_code, ws.close_reason
    raise AssertionError("still open")


async def messages():
    async with connect("echo") as ws:
        for message in ["hello", "", "žluťoučký kůň ☕", b"", b"\x00\xff" * 5, os.urandom(1 << 20), "x" * (1 << 20)]:
            await ws.send(message)
            echoed = await asyncio.wait_for(ws.recv(), 20)
            assert echoed == message and type(echoed) is type(message), (type(message), len(message), len(echoed))
        # One message in fragments.
        await ws.send(["one ", "two ", "three"])
        assert await asyncio.wait_for(ws.recv(), 20) == "one two three"


async def both_ways_at_once():
    async with connect("echo") as ws:
        sent = [os.urandom(70_000) for _ in range(60)]

        async def send():
            for message in sent:
                await ws.send(message)

        sending = asyncio.create_task(send())
        for message in sent:
            assert await asyncio.wait_for(ws.recv(), 20) == message
        await sending


async def unasked():
    async with connect("push") as ws:
        assert [await asyncio.wait_for(ws.recv(), 20) for _ in range(3)] == [f"message {n}" for n in range(3)]


async def compression():
    async with connect("extensions") as ws:
        assert await ws.recv() == "permessage-deflate"
        assert [e.name for e in ws.extensions] == ["permessage-deflate"]
        await ws.send("again and again " * 100_000)
        assert await asyncio.wait_for(ws.recv(), 20) == "again and again " * 100_000
    async with connect("extensions", compression=None) as ws:
        assert await ws.recv() == "none"


async def pings():
    async with connect("echo") as ws:
        for data in [b"", b"beat", b"x" * 125]:
            await asyncio.wait_for(await ws.ping(data), 20)


async def subprotocols():
    async with connect("echo", subprotocols=["v1.chat", "v2.chat"]) as ws:
        assert ws.subprotocol in ("v1.chat", "v2.chat"), ws.subprotocol
    async with connect("echo", subprotocols=["unknown"]) as ws:
        assert ws.subprotocol is None, ws.subprotocol


async def closing():
    async with connect("close") as ws:
        assert await closed(ws) == (4001, "enough"), (ws.close_code, ws.close_reason)
    for code, reason in [(1000, ""), (1001, "away"), (3456, "ž" * 40)]:
        ws = await connect("echo")
        await ws.close(code, reason)
        assert ws.close_code == code, ws.close_code


async def refusals():
    for kind, status in [("refuse", 403), ("../elsewhere", 400)]:
        try:
            async with connect(kind):
                raise AssertionError(f"{kind} was switched to")
        except websockets.InvalidStatusCode as refused:
            assert refused.status_code == status, (kind, refused)
            assert kind != "refuse" or refused.headers["X-Why"] == "closed", refused.headers
    try:
        async with connect("echo", origin="https://evil.example"):
            raise AssertionError("a foreign page got in")
    except websockets.InvalidStatusCode as refused:
        assert refused.status_code == 403, refused


async def idle():
    """The route closes after two silent seconds; pings keep a connection open."""
    async with connect("quiet") as silent, connect("quiet", ping_interval=0.5) as alive:
        assert (await closed(silent))[0] == 1006
        await asyncio.sleep(0.7)
        await asyncio.wait_for(await alive.ping(), 20)


async def many():
    async def one(number):
        async with connect("echo") as ws:
            await ws.send(str(number))
            assert await asyncio.wait_for(ws.recv(), 20) == str(number)

    await asyncio.gather(*(one(number) for number in range(60)))


async def main():
    for check in [messages, both_ways_at_once, unasked, compression, pings, subprotocols, closing, refusals, idle, many]:
        await check()
        print("ok", check.__name__, flush=True)


asyncio.run(main())

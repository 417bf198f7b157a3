"""A WebSocket server of the `websockets` library. It only takes connections that carry the token, prints `READY PORT`, then
what it saw of each connection's end: `CLOSED CODE REASON`.

/echo        sends back what it gets            /close       closes with 4001 "enough"
/extensions  says which extensions it negotiated /refuse      answers 403 instead of switching
/quiet       never says anything                 /push        sends three messages without being asked
"""

import asyncio
import http

import websockets


async def handler(ws, path):
    kind = path.rsplit("/", 1)[-1].split("?")[0]
    if kind == "close":
        await ws.close(4001, "enough")
    elif kind == "extensions":
        await ws.send(",".join(e.name for e in ws.extensions) or "none")
    elif kind == "push":
        for number in range(3):
            await ws.send(f"message {number}")
    try:
        async for message in ws:
            await ws.send(message)
    except websockets.ConnectionClosed:
        pass
    print("CLOSED", ws.close_code, ws.close_reason, flush=True)


async def judge(path, headers):
    if headers.get_all("Authorization") != ["Bearer not-a-token-1"]:
        return http.HTTPStatus.UNAUTHORIZED, [], b"no token\n"
    if "/refuse" in path:
        return http.HTTPStatus.FORBIDDEN, [("X-Why", "closed")], b"not today\n"
    return None


async def main():
    options = dict(process_request=judge, subprotocols=["v2.chat", "v1.chat"], max_size=None, ping_interval=None)
    async with websockets.serve(handler, "127.0.0.1", 0, **options) as server:
        print("READY", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())

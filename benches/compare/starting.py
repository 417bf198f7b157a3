"""Cold: how soon a proxy that was just started serves, and what hundreds of callers at once cost the provider."""

import time
from statistics import median

from callers import Caller, TokenEndpoint
from servers import Failed, free_ports


def repeated(stage, times):
    """The median of so many cold starts."""
    starts = [first_answer(stage) for _ in range(times)]
    return {"cost": median(start["cost"] for start in starts), "slowest": max(start["cost"] for start in starts),
            "rss_kib": median(start["rss_kib"] for start in starts)}


def first_answer(stage):
    """Milliseconds from starting the process to the whole answer of its first request, token request included."""
    port = free_ports(1)[0]
    began = time.monotonic()
    server = stage.spawn_cupbearer("cold start", port=port)
    try:
        caller = connected(server, port)
        caller.ask()
        status = caller.status()
        taken = time.monotonic() - began
        caller.close()
        if status != 200:
            raise Failed(f"the first request after the start got {status}; {server.said()}")
        return {"cost": taken * 1000, "rss_kib": server.rss_kib()}
    finally:
        server.stop()


def connected(server, port, patience=10):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            return Caller(port)
        except ConnectionRefusedError:
            time.sleep(0.0005)
    raise Failed(f"nothing listens after {patience} s; {server.said()}")


def token_requests(stage, callers):
    """How many token requests so many callers cost that come at once while there is no token."""
    endpoint = TokenEndpoint(delay=0.3)
    proxy = stage.start_cupbearer("cold callers", token_url=endpoint.url())
    held = []
    try:
        held = [Caller(proxy.ports["plain"], 30) for _ in range(callers)]
        for caller in held:
            caller.ask()
        refused = [status for status in (caller.status() for caller in held) if status != 200]
        if refused:
            raise Failed(f"{len(refused)} of {callers} cold callers were not served: {refused[:5]}")
        return {"cost": endpoint.requests, "rss_kib": proxy.server.rss_kib()}
    finally:
        for caller in held:
            caller.close()
        proxy.server.stop()
        endpoint.stop()

"""Every scenario: who takes part, and how one measurement of one of them is made."""

from collections.abc import Callable
from dataclasses import dataclass

import load
import memory
import reload
import spread
import starting
import syscalls

ROUTES = 9_997  # beside the three that are asked: 10 000


@dataclass
class Scenario:
    """`takes_part(stage)`: name → candidate, all measured in each round, in turn.
    `measure(stage, candidate, options)`: one measurement, a dict with at least `cost` and `rss_kib`."""

    about: str
    unit: str
    takes_part: Callable
    measure: Callable
    # What does not drift with the machine needs no second round.
    rounds: bool = True


def side_by_side(*peers):
    """cupbearer and these peers."""
    def candidates(stage):
        found = {"cupbearer": stage.cupbearer(tls=True)} if stage.binary else {}
        return found | {peer.name: peer for peer in stage.peers if peer.name in peers}
    return candidates


def small(route, how="plain"):
    return lambda stage, proxy, o: load.small(stage, proxy, route, o.seconds, o.connections, how)


def logged(stage):
    """The same proxy twice; one writes an access log."""
    if not stage.binary:
        return {}
    path = stage.dir / "access.log"
    return {"off": stage.cupbearer(tls=True), "on": stage.cupbearer("access log", access_log=path)}


def counted_routes(stage):
    if not stage.binary:
        return {}
    return {"one": stage.cupbearer(tls=True), "10 000": stage.cupbearer("many routes", routes=ROUTES)}


def workers(*numbers):
    """Instances with so many workers, which may run on every core, as everybody else may."""
    def candidates(stage):
        if not stage.binary:
            return {}
        cores = stage.cores.both()
        return {f"{n} workers": stage.cupbearer(f"{n} workers", cores, workers=n) for n in numbers}
    return candidates


def undisturbed_and_reloading(stage):
    """One proxy under two names: left alone, and made to reload."""
    if not stage.binary:
        return {}
    proxy = stage.cupbearer("reloading", routes=ROUTES)
    return {"undisturbed": (proxy, False), "reloading": (proxy, True)}


def reloaded(stage, candidate, options):
    proxy, disturb = candidate
    path = stage.dir / "reloading.toml"
    return reload.reloading(stage, proxy, path, options.seconds, options.connections, disturb)


def cupbearer_itself(stage):
    """Where each measurement starts a process of its own."""
    return {"cupbearer": None} if stage.binary else {}


def how_often(options):
    """100 MB transfers for about the time of the other measurements."""
    return 1 if options.smoke else 2 * options.seconds


SCENARIOS = {
    # Memory first: load leaves its traces in it.
    "idle": Scenario(
        "memory: idle, and of each of 10 000 idle keep-alive connections", "KiB/connection",
        side_by_side("nginx", "haproxy"), lambda stage, proxy, o: memory.idle(proxy, 50 if o.smoke else 10_000),
        rounds=False),
    "syscalls": Scenario(
        "system calls a request, waiting apart; fails above four for cupbearer", "calls/request",
        side_by_side("nginx", "haproxy", "relay"), lambda stage, proxy, o: syscalls.per_request(stage, proxy),
        rounds=False),
    "plain": Scenario(
        "1 KiB, plain in, plain out; `relay` is HAProxy passing bytes blindly: the floor", "µs/request",
        side_by_side("nginx", "haproxy", "relay"), small("plain")),
    "tls": Scenario(
        "1 KiB, plain in, TLS 1.3 out: the main job", "µs/request", side_by_side("nginx", "haproxy"), small("tls")),
    "h2-out": Scenario(
        "1 KiB, plain in, HTTP/2 over TLS 1.3 out (nginx 1.22 cannot)", "µs/request", side_by_side("haproxy"),
        small("h2")),
    "h2-in": Scenario(
        "1 KiB, HTTP/2 in by prior knowledge, plain out", "µs/request", side_by_side("nginx", "haproxy"),
        lambda stage, proxy, o: load.multiplexed(stage, proxy, o.seconds, o.connections)),
    "tls-in": Scenario(
        "1 KiB, TLS 1.3 in, plain out", "µs/request", side_by_side("nginx", "haproxy"), small("plain", "tls")),
    "download": Scenario(
        "100 MB responses over TLS", "µs/MB", side_by_side("nginx", "haproxy"),
        lambda stage, proxy, o: load.download(stage, proxy, how_often(o))),
    "download-h2-in": Scenario(
        "100 MB responses, HTTP/2 in by prior knowledge, plain out", "µs/MB", side_by_side("nginx", "haproxy"),
        lambda stage, proxy, o: load.download(stage, proxy, how_often(o), "plain", "h2")),
    "download-h2-out": Scenario(
        "100 MB responses, plain in, HTTP/2 over TLS out (nginx 1.22 cannot)", "µs/MB", side_by_side("haproxy"),
        lambda stage, proxy, o: load.download(stage, proxy, how_often(o), "h2")),
    "upload": Scenario(
        "100 MB request bodies over TLS", "µs/MB", side_by_side("nginx", "haproxy"),
        lambda stage, proxy, o: load.upload(stage, proxy, how_often(o))),
    "routes": Scenario(
        "`plain` with one route (beside two) and with 10 000, the asked one in the middle", "µs/request",
        counted_routes, small("plain")),
    "log": Scenario("`plain` with the access log off, and as JSON into a file", "µs/request", logged, small("plain")),
    "workers": Scenario(
        "`tls` with one worker and with two", "µs/request", workers(1, 2),
        lambda stage, proxy, o: spread.spread(stage, proxy, "tls", o.seconds, o.connections)),
    "balance": Scenario(
        "64 keep-alive connections over four workers", "µs/request", workers(4),
        lambda stage, proxy, o: spread.spread(stage, proxy, "plain", o.seconds, 64)),
    "reload": Scenario(
        "`plain` with 10 000 routes, left alone and reloading every second", "µs/request", undisturbed_and_reloading,
        reloaded),
    "start": Scenario(
        "from starting the process to its first answer", "ms", cupbearer_itself,
        lambda stage, _, o: starting.repeated(stage, 1 if o.smoke else 10), rounds=False),
    "callers": Scenario(
        "token requests that 600 cold callers at once cost", "token requests", cupbearer_itself,
        lambda stage, _, o: starting.token_requests(stage, 600), rounds=False),
}

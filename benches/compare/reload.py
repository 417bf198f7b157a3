"""Reloading a large configuration under load: no request may fail, none may wait much longer."""

import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import configs
from load import wrk
from servers import NotAvailable

PAUSE = 1.0  # seconds between reloads
PATIENCE = 5  # seconds until a reload must have taken effect


class Reloader:
    """Changes a proxy's file and tells it so, again and again, until it is told to end."""

    def __init__(self, proxy, path):
        self.proxy = proxy
        self.path = Path(path)
        self.text = self.path.read_text()
        self.number = 0
        self.ended = threading.Event()

    def once(self):
        """Another route each time: whether the new file is in force shows from outside."""
        self.number += 1
        upstream = self.text.split('upstream = "', 1)[1].split('"', 1)[0]
        self.path.write_text(self.text + configs.ROUTE.format(prefix=f"/new-{self.number}", upstream=upstream))
        self.proxy.server.process.send_signal(signal.SIGHUP)

    def in_force(self):
        try:
            urllib.request.urlopen(self.proxy.url(f"new-{self.number}", "/"), timeout=5).close()
            return True
        except urllib.error.HTTPError as error:
            # A route that leads nowhere still is one.
            return b"no_route" not in error.read()

    def restore(self):
        """The file as it was, in force before anything else is measured."""
        self.path.write_text(self.text)
        self.proxy.server.process.send_signal(signal.SIGHUP)
        self.wait_until_in_force(False)

    def wait_until_in_force(self, wanted=True):
        end = time.monotonic() + PATIENCE
        while self.in_force() != wanted:
            if time.monotonic() > end:
                last = (self.proxy.server.printed().splitlines() or [""])[-1]
                raise NotAvailable(f"a changed file and SIGHUP had no effect within {PATIENCE} s: {last}")
            time.sleep(0.02)

    def run(self):
        while not self.ended.wait(PAUSE):
            self.once()


def reloading(stage, proxy, path, seconds, connections, disturb):
    """One run of load, with a reload every second where `disturb`; `failed` requests are counted, not fatal."""
    reloader = Reloader(proxy, path)
    if disturb:
        reloader.once()
        reloader.wait_until_in_force()
    thread = threading.Thread(target=reloader.run)
    before = proxy.server.cpu_seconds()
    if disturb:
        thread.start()
    try:
        result = wrk(stage, proxy, "plain", seconds, connections)
    finally:
        reloader.ended.set()
        if disturb:
            thread.join()
    cpu = proxy.server.cpu_seconds() - before
    if disturb:
        reloader.wait_until_in_force()
        reloader.restore()
    return {
        "cost": cpu * 1e6 / max(1, result["requests"]),
        "failed": result["errors"],
        "reloads": reloader.number,
        "p99_us": result["p99_us"],
        "per_second": result["requests"] * 1e6 / result["us"],
        "rss_kib": proxy.server.rss_kib(),
    }

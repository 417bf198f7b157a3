"""System calls per request, counted by strace.

A request needs four: the caller's bytes read, the upstream's written, the upstream's read, the caller's written.
Waiting (epoll) is shared by all connections that are ready at a time and is counted apart.
"""

import re
import signal
import subprocess

from load import run
from servers import Failed, NotAvailable, program

WAITING = ("epoll_wait", "epoll_pwait", "epoll_pwait2")
CONNECTIONS = 32
FEW, MANY = 1000, 5000
MOST = 4.05  # what happens once in a while has its share too


def per_request(stage, proxy):
    """The cost is calls per request without waiting; what connections cost at their begin and end cancels out."""
    request(stage, proxy, CONNECTIONS)  # upstream connections stand
    few, many = counted(stage, proxy, FEW), counted(stage, proxy, MANY)
    calls = {name: (many.get(name, 0) - few.get(name, 0)) / (MANY - FEW) for name in many}
    waiting = sum(n for name, n in calls.items() if name in WAITING)
    working = {name: round(n, 3) for name, n in calls.items() if name not in WAITING and abs(n) >= 0.01}
    cost = sum(calls.values()) - waiting
    if proxy.name == "cupbearer" and cost > MOST:
        raise Failed(f"a request takes {cost:.2f} system calls, more than {MOST}: {working}")
    return {"cost": cost, "waiting": waiting, "calls": working, "rss_kib": proxy.server.rss_kib()}


def request(stage, proxy, number):
    """So many requests over HTTP/1.1, each connection kept."""
    clients = min(CONNECTIONS, number)
    command = [program("h2load"), "--h1", "-t1", f"-c{clients}", f"-n{number}"]
    for name, value in proxy.headers().items():
        command += ["-H", f"{name}: {value}"]
    done = run(stage, [*command, proxy.url("plain", "/v1/1k")], 120)
    if f"status codes: {number} 2xx" not in done:
        raise Failed(f"{proxy.name}: not all of {number} requests succeeded: {done}")


def counted(stage, proxy, number):
    """How often each system call was made during so many requests."""
    table = stage.dir / "strace.txt"
    command = [program("strace"), "-f", "-c", "-U", "name,calls", "-o", str(table), "-p", str(proxy.server.process.pid)]
    tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        told = tracer.stderr.readline()
        if "attached" not in told:
            raise NotAvailable(f"strace cannot watch {proxy.name} (it needs ptrace): {told.strip()}")
        request(stage, proxy, number)
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=20)
    return {name: int(calls) for name, calls in re.findall(r"^(\w+) +(\d+)$", table.read_text(), re.M) if name != "total"}

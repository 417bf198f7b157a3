"""One measurement: load through one proxy, and what it cost that proxy."""

import json
import socket
import subprocess
import urllib.request
from pathlib import Path

from servers import BIG, Failed, own, program

WRK_REPORT = """
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"us":%d,"p99_us":%d,"errors":%d}\\n',
    summary.requests, summary.duration, latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def small(stage, proxy, route, seconds, connections):
    """Many 1 KiB responses; the cost is CPU microseconds per request."""
    script = stage.dir / "report.lua"
    script.write_text(WRK_REPORT)
    command = [program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    for name, value in proxy.headers().items():
        command += ["-H", f"{name}: {value}"]
    before = proxy.server.cpu_seconds()
    done = run(stage, [*command, proxy.url(route, "/v1/1k")], seconds + 30)
    cpu = proxy.server.cpu_seconds() - before
    line = next((line for line in done.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise Failed(f"wrk reported nothing: {done}")
    result = json.loads(line.removeprefix("RESULT "))
    if result["errors"] or not result["requests"]:
        raise Failed(f"{proxy.name}: {result['errors']} of {result['requests']} requests failed")
    return {
        "cost": cpu * 1e6 / result["requests"],
        "p99_us": result["p99_us"],
        "per_second": result["requests"] * 1e6 / result["us"],
        "rss_kib": proxy.server.rss_kib(),
    }


def download(stage, proxy, times):
    """100 MB responses over TLS, one after the other; the cost is CPU microseconds per MB."""
    url = proxy.url("tls", "/v1/big")
    sinks = [argument for _ in range(times) for argument in ("-o", "/dev/null", url)]
    return bodies(stage, proxy, times, sinks)


def upload(stage, proxy, times):
    """100 MB uploads over TLS; the same."""
    url = proxy.url("tls", "/up/big")
    sources = [argument for _ in range(times) for argument in ("-T", str(stage.dir / "www/big"), url)]
    return bodies(stage, proxy, times, ["-H", "Expect:", *sources])


def bodies(stage, proxy, times, transfers):
    before = proxy.server.cpu_seconds()
    done = run(stage, [program("curl"), "-sS", "-w", "%{http_code} %{time_total}\n", *transfers], 60 + 10 * times)
    cpu = proxy.server.cpu_seconds() - before
    answers = [line.split() for line in done.splitlines()]
    if len(answers) != times or any(status not in ("200", "201", "204") for status, _ in answers):
        raise Failed(f"{proxy.name}: not every transfer succeeded: {done.strip()}")
    return {
        "cost": cpu * 1e6 / (times * BIG / 1e6),
        "per_second": times * BIG / 1e6 / sum(float(seconds) for _, seconds in answers),
        "rss_kib": proxy.server.rss_kib(),
    }


def idle(proxy, connections):
    """What a keep-alive caller connection costs in memory while nothing happens on it, in KiB."""
    before = proxy.server.rss_kib()
    target = proxy.url("plain", "/v1/1k").split("/", 3)[3]
    request = f"GET /{target} HTTP/1.1\r\nHost: 127.0.0.1:{proxy.port}\r\n\r\n".encode()
    held = []
    try:
        for _ in range(connections):
            connection = socket.create_connection(("127.0.0.1", proxy.port), 10)
            held.append(connection)
            connection.sendall(request)
            answer = b""
            while len(answer) < 1024 or not answer.partition(b"\r\n\r\n")[2][1023:]:
                part = connection.recv(65536)
                if not part:
                    raise Failed(f"{proxy.name} closed a connection: {answer[:200]!r}")
                answer += part
        after = proxy.server.rss_kib()
    finally:
        for connection in held:
            connection.close()
    return {"cost": (after - before) / connections, "rss_kib": before}


def works(stage, proxy, route):
    """One request: the origin must have seen the right Authorization, and the file come back whole."""
    request = urllib.request.Request(proxy.url(route, "/v1/1k"), headers=proxy.headers())
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            status, body = response.status, response.read()
    except OSError as error:
        detail = error.read().decode(errors="replace") if hasattr(error, "read") else ""
        raise Failed(f"{proxy.name} does not work ({route}): {error} {detail}\n{proxy.server.said()}") from error
    if status != 200 or body != (stage.dir / "www/1k").read_bytes():
        raise Failed(f"{proxy.name} does not work ({route}): status {status}, {len(body)} bytes")


def guarded(stage):
    """The origin refuses whoever brings no token: else the comparison would prove nothing."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{stage.ports['plain']}/v1/1k", timeout=10).close()
    except urllib.error.HTTPError as error:
        if error.code == 401:
            return
    raise Failed("the origin serves without a token")


def run(stage, command, timeout):
    core = stage.cores.rest
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, preexec_fn=lambda: own(core))
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{Path(command[0]).name} took more than {timeout} s") from error
    if done.returncode:
        raise Failed(f"{Path(command[0]).name} failed: {done.stdout} {done.stderr}")
    return done.stdout

"""The load generators, and what one measurement of a proxy's cost gives."""

import json
import re
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


def small(stage, proxy, route, seconds, connections, how="plain"):
    """Many 1 KiB responses over HTTP/1.1; the cost is CPU microseconds per request."""
    before = proxy.server.user_and_kernel_seconds()
    result = wrk(stage, proxy, route, seconds, connections, how)
    user, kernel = (after - b for after, b in zip(proxy.server.user_and_kernel_seconds(), before))
    if result["errors"]:
        raise Failed(f"{proxy.name}: {result['errors']} of {result['requests']} requests failed")
    if not result["requests"]:
        raise Failed(f"{proxy.name}: not one request was answered within {seconds} s: is the machine busy?")
    return {
        "cost": (user + kernel) * 1e6 / result["requests"],
        "user": user * 1e6 / result["requests"],
        "p99_us": result["p99_us"],
        "per_second": result["requests"] * 1e6 / result["us"],
        "rss_kib": proxy.server.rss_kib(),
    }


def wrk(stage, proxy, route, seconds, connections, how="plain"):
    script = stage.dir / "report.lua"
    script.write_text(WRK_REPORT)
    command = [program("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)]
    for name, value in proxy.headers().items():
        command += ["-H", f"{name}: {value}"]
    done = run(stage, [*command, proxy.url(route, "/v1/1k", how)], seconds + 30)
    line = next((line for line in done.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise Failed(f"wrk reported nothing: {done}")
    return json.loads(line.removeprefix("RESULT "))


def multiplexed(stage, proxy, seconds, connections):
    """The same over HTTP/2: an eighth of the connections, with eight streams each."""
    clients = max(1, connections // 8)
    before = proxy.server.cpu_seconds()
    amount = ["-D", str(seconds), f"-c{clients}", "-m8"]
    done = run(stage, [program("h2load"), "-t1", *amount, proxy.url("plain", "/v1/1k", "h2")], seconds + 30)
    cpu = proxy.server.cpu_seconds() - before
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed", done)
    answers = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done)
    rate = re.search(r"([\d.]+) req/s", done)
    if not (counts and answers and rate):
        raise Failed(f"h2load reported nothing: {done}")
    good, bad = int(answers[1]), sum(int(answers[n]) for n in (2, 3, 4))
    if bad or int(counts[3]) or not good:
        raise Failed(f"{proxy.name}: {bad + int(counts[3])} of {counts[1]} requests failed over HTTP/2")
    return {"cost": cpu * 1e6 / good, "per_second": float(rate[1]), "rss_kib": proxy.server.rss_kib()}


def download(stage, proxy, times, route="tls", how="plain"):
    """100 MB responses, one after the other; the cost is CPU microseconds per MB."""
    url = proxy.url(route, "/v1/big", how)
    if how == "h2":
        # curl 7.88 loses its way on a connection of prior knowledge that it uses again: one connection for each.
        return bodies(stage, proxy, times, ["--http2-prior-knowledge", "-o", "/dev/null", url], runs=times)
    sinks = [argument for _ in range(times) for argument in ("-o", "/dev/null", url)]
    return bodies(stage, proxy, times, sinks)


def upload(stage, proxy, times):
    """100 MB uploads over TLS; the same."""
    url = proxy.url("tls", "/up/big")
    sources = [argument for _ in range(times) for argument in ("-T", str(stage.dir / "www/big"), url)]
    return bodies(stage, proxy, times, ["-H", "Expect:", *sources])


def bodies(stage, proxy, times, transfers, runs=1):
    before = proxy.server.cpu_seconds()
    curl = [program("curl"), "-sS", "-w", "%{http_code} %{time_total}\n", *transfers]
    done = "".join(run(stage, curl, 60 + 10 * times) for _ in range(runs))
    cpu = proxy.server.cpu_seconds() - before
    answers = [line.split() for line in done.splitlines()]
    if len(answers) != times or any(status not in ("200", "201", "204") for status, _ in answers):
        raise Failed(f"{proxy.name}: not every transfer succeeded: {done.strip()}")
    return {
        "cost": cpu * 1e6 / (times * BIG / 1e6),
        "per_second": times * BIG / 1e6 / sum(float(seconds) for _, seconds in answers),
        "rss_kib": proxy.server.rss_kib(),
    }


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


def run(stage, command, timeout, cores=None):
    cores = cores or {stage.cores.rest}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, preexec_fn=lambda: own(cores))
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{Path(command[0]).name} took more than {timeout} s") from error
    if done.returncode:
        raise Failed(f"{Path(command[0]).name} failed: {done.stdout} {done.stderr}")
    return done.stdout

"""Several workers: is the load spread evenly, and what would a second core bring?

On two cores the load generator and the origin need one of them, so that throughput with two workers says more
about them than about the proxy. What can be measured is the CPU time of each worker: what the busiest spends on a request
is what limits the whole, once each worker has a core for itself.
"""

from load import wrk
from servers import Failed


def spread(stage, proxy, route, seconds, connections):
    """`busiest`: its CPU time over the mean of all workers. `per_core_second`: requests for each CPU second of the
    busiest worker: the throughput to expect where every worker has a core."""
    before = proxy.server.thread_seconds("worker-")
    result = wrk(stage, proxy, route, seconds, connections)
    after = proxy.server.thread_seconds("worker-")
    if result["errors"]:
        raise Failed(f"{proxy.name}: {result['errors']} of {result['requests']} requests failed")
    if not result["requests"]:
        raise Failed(f"{proxy.name}: not one request was answered within {seconds} s: is the machine busy?")
    spent = [after[thread] - before[thread] for thread in before]
    return {
        "cost": sum(spent) * 1e6 / result["requests"],
        "busiest": max(spent) * len(spent) / sum(spent),
        "per_core_second": result["requests"] / max(spent),
        "per_second": result["requests"] * 1e6 / result["us"],
        "p99_us": result["p99_us"],
        "rss_kib": proxy.server.rss_kib(),
    }

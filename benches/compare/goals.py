"""The goals, and how far a run's figures are from them."""

from dataclasses import dataclass

from syscalls import MOST


@dataclass
class Goal:
    """`figure` of `of` in a scenario; with peers its ratio to theirs, to the better one where there are several."""

    what: str
    scenario: str
    figure: str
    of: str
    limit: float
    peers: tuple = ()
    at_least: bool = False

    def measured(self, summary):
        """None where the run has no such figure."""
        facts = summary[self.scenario]
        if not self.peers:
            return facts["medians"].get(self.of, {}).get(self.figure)
        found = [facts["ratios"].get(f"{self.of}/{peer}", {}).get(self.figure) for peer in self.peers]
        found = [ratio["median"] for ratio in found if ratio]
        if len(found) < len(self.peers):
            return None
        return min(found) if self.at_least else max(found)

    def met(self, measured):
        if measured is None:
            return False
        return measured >= self.limit if self.at_least else measured <= self.limit


BOTH = ("nginx", "haproxy")
GOALS = [
    Goal("plain in → TLS 1.3 out, CPU, vs nginx", "tls", "cost", "cupbearer", 0.80, ("nginx",)),
    Goal("plain in → TLS 1.3 out, CPU, vs HAProxy", "tls", "cost", "cupbearer", 0.80, ("haproxy",)),
    Goal("plain in → plain out, CPU, vs nginx", "plain", "cost", "cupbearer", 1.00, ("nginx",)),
    Goal("plain in → plain out, CPU, vs HAProxy", "plain", "cost", "cupbearer", 0.90, ("haproxy",)),
    Goal("plain in → TLS HTTP/2 out, CPU, vs HAProxy", "h2-out", "cost", "cupbearer", 0.90, ("haproxy",)),
    Goal("plain → plain, CPU, vs the byte relay", "plain", "cost", "cupbearer", 1.25, ("relay",)),
    Goal("p99 at 64 connections, plain, vs the better peer", "plain", "p99_us", "cupbearer", 1.10, BOTH),
    Goal("p99 at 64 connections, TLS out, vs the better peer", "tls", "p99_us", "cupbearer", 1.10, BOTH),
    Goal("100 MB responses over TLS, CPU, vs nginx", "download", "cost", "cupbearer", 1.00, ("nginx",)),
    Goal("100 MB request bodies over TLS, CPU, vs nginx", "upload", "cost", "cupbearer", 1.00, ("nginx",)),
    Goal("resident memory, idle [MB]", "idle", "rss_mb", "cupbearer", 20),
    Goal("memory of an idle keep-alive connection, of 10 000 [KiB]", "idle", "cost", "cupbearer", 12),
    Goal("10 000 routes, CPU, vs one", "routes", "cost", "10 000", 1.03, ("one",)),
    Goal("access log on (JSON to a file), CPU, vs off", "log", "cost", "on", 1.10, ("off",)),
    Goal("two workers, throughput for each CPU second of the busiest, vs one", "workers", "per_core_second", "2 workers",
         1.9, ("1 workers",), at_least=True),
    Goal("64 connections over four workers, busiest vs mean", "balance", "busiest", "4 workers", 1.25),
    Goal("cold start to the first served request [ms]", "start", "cost", "cupbearer", 50),
    Goal("token requests of 600 cold callers at once", "callers", "cost", "cupbearer", 1),
    Goal("reload with 10 000 routes under load, failed requests", "reload", "failed", "reloading", 0),
    Goal("reload with 10 000 routes under load, p99, vs undisturbed", "reload", "p99_us", "reloading", 2.0,
         ("undisturbed",)),
    Goal("system calls a request, without waiting", "syscalls", "cost", "cupbearer", MOST),
]


def judged(summary):
    """Each goal of the scenarios that ran, as it goes into the JSON."""
    rows = []
    for goal in GOALS:
        if goal.scenario in summary:
            measured = goal.measured(summary)
            rows.append({"goal": goal.what, "scenario": goal.scenario, "measured": measured, "limit": goal.limit,
                         "at_least": goal.at_least, "met": goal.met(measured)})
    return rows

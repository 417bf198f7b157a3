"""Memory: of an idle proxy, and of each connection that a caller keeps open and does not use."""

import resource

from callers import Caller
from servers import Failed


def idle(proxy, connections):
    """The cost is KiB of resident memory per idle connection; `rss_kib` is what stood there before."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < connections + 100:
        raise Failed(f"{connections} connections need that many descriptors and 100; {most} are allowed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(allowed, most), most))
    before = proxy.server.rss_kib()
    held = []
    try:
        for _ in range(connections):
            caller = Caller(proxy.ports["plain"])
            held.append(caller)
            caller.ask()
            if caller.status() != 200:
                raise Failed(f"{proxy.name} does not serve {connections} connections")
        after = proxy.server.rss_kib()
    finally:
        for caller in held:
            caller.close()
    return {"cost": (after - before) / connections, "rss_kib": before}

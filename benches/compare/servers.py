"""The processes of a comparison: the origin, the proxies, each pinned to its core."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import configs

BIG = 100 * 1000 * 1000  # bytes of the large body


class Failed(Exception):
    """The comparison cannot go on; the text says why."""


class NotAvailable(Exception):
    """This binary cannot do what a scenario is about; the text says why."""


@dataclass
class Cores:
    """Who runs where. On a single core everything shares it, and figures mean little."""

    proxy: int
    rest: int

    @staticmethod
    def choose():
        available = sorted(os.sched_getaffinity(0))
        return Cores(available[0], available[min(1, len(available) - 1)])

    def both(self):
        return {self.proxy, self.rest}


class Server:
    """A child process on its cores, gone when this program is gone, whatever ends it."""

    def __init__(self, name, command, cores, env=None, log=None):
        self.name = name
        self.log = log
        env = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **(env or {})}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            preexec_fn=lambda: own(cores),
        )
        self.lines = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def printed(self):
        return "".join(self.lines)

    def said(self):
        text = self.printed()
        if self.log and Path(self.log).exists():
            text += Path(self.log).read_text()
        return text.strip() or "(nothing)"

    def wait_until(self, ready, patience=20):
        """What `ready()` returns as soon as that is something."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            found = ready()
            if found:
                return found
            if self.process.poll() is not None:
                self.reader.join(1)
                raise Failed(f"{self.name} ended with {self.process.returncode}; it said: {self.said()}")
            time.sleep(0.01)
        raise Failed(f"{self.name} is not ready after {patience} s; it said: {self.said()}")

    def cpu_seconds(self):
        """utime + stime of the whole process, all threads, ended ones included."""
        return sum(self.user_and_kernel_seconds())

    def user_and_kernel_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return tuple(int(fields[at]) / os.sysconf("SC_CLK_TCK") for at in (11, 12))

    def thread_seconds(self, name):
        """CPU seconds of each thread that is called like this, by its id."""
        seconds = {}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            if (task / "comm").read_text().startswith(name):
                seconds[task.name] = int((task / "schedstat").read_text().split()[0]) / 1e9
        return seconds

    def rss_kib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def own(cores):
    """In the child: pin it, and let it die with its parent (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.sched_setaffinity(0, cores)


@dataclass
class Proxy:
    """One candidate: its process, its ports by how they are spoken to."""

    name: str
    server: Server
    ports: dict
    # A relay adds nothing, so the load generator asks the origin itself.
    relay: bool = False

    def url(self, route, path, how="plain"):
        prefix = "" if self.relay else f"/{route}"
        scheme = "https" if how == "tls" else "http"
        return f"{scheme}://127.0.0.1:{self.ports[how]}{prefix}{path}"

    def headers(self):
        return {"Authorization": f"Bearer {configs.TOKEN}"} if self.relay else {}


class Stage:
    """The origin and all candidates of one comparison, in a directory of their own."""

    def __init__(self, directory, binary):
        """`binary`: cupbearer's, or None to compare the peers alone."""
        self.dir = Path(directory)
        self.binary = binary
        self.cores = Cores.choose()
        self.servers = []
        self.peers = []
        self.variants = {}
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self):
        make_certificates(self.dir)
        for name in ("www", "uploads"):
            (self.dir / name).mkdir()
        (self.dir / "www/1k").write_bytes(os.urandom(1024))
        with open(self.dir / "www/big", "wb") as big:
            block = os.urandom(1000 * 1000)
            for _ in range(BIG // len(block)):
                big.write(block)
        self.ports = dict(zip(("plain", "tls", "h2"), free_ports(3)))
        origin = self._config("origin.conf", configs.ORIGIN)
        origin = self.server("origin", [program("nginx"), "-e", "stderr", "-c", origin], {self.cores.rest})
        origin.wait_until(lambda: all(listens(port) for port in self.ports.values()))
        self._peer("nginx", ["-e", "stderr", "-c"], configs.NGINX)
        self._peer("haproxy", ["-db", "-f"], configs.HAPROXY)
        self._peer("relay", ["-db", "-f"], configs.RELAY, relay=True)

    def _config(self, name, template, **more):
        path = self.dir / name
        path.write_text(template.format(dir=self.dir, token=configs.TOKEN, **self.ports, **more))
        return str(path)

    def _peer(self, name, arguments, template, relay=False):
        ports = dict(zip(("plain", "tls", "h2"), free_ports(3)))
        config = self._config(f"{name}.conf", template, port=ports["plain"], tls_port=ports["tls"], h2_port=ports["h2"])
        server = self.server(name, [program("haproxy" if relay else name), *arguments, config], {self.cores.proxy})
        server.wait_until(lambda: listens(ports["plain"]))
        self.peers.append(Proxy(name, server, ports, relay))

    def server(self, name, command, cores, env=None):
        server = Server(name, command, cores, env, self.dir / f"{name}.log")
        self.servers.append(server)
        return server

    def cupbearer(self, name="cupbearer", cores=None, **settings):
        """The one of this name, started now unless it runs already; `settings` as of `configs.cupbearer`."""
        if name not in self.variants:
            self.variants[name] = self.start_cupbearer(name, cores, **settings)
        return self.variants[name]

    def start_cupbearer(self, name, cores=None, **settings):
        """A new one, which listens when this returns."""
        server = self.spawn_cupbearer(name, cores, **settings)
        line = re.compile(r"listening on (https?)://127\.0\.0\.1:(\d+)")
        many = 2 if settings.get("tls") else 1
        try:
            server.wait_until(lambda: len(line.findall(server.printed())) == many)
        except Failed as failure:
            if "not built" in str(failure):
                raise NotAvailable(f"{name}: not built yet in this version") from failure
            raise
        found = {scheme: int(port) for scheme, port in line.findall(server.printed())}
        return Proxy(name, server, {"plain": found["http"], "h2": found["http"], "tls": found.get("https")})

    def spawn_cupbearer(self, name, cores=None, **settings):
        """Its process, whatever becomes of it; `settings` as of `configs.cupbearer`."""
        path = self.dir / f"{name.replace(' ', '-')}.toml"
        path.write_text(configs.cupbearer(self.dir, self.ports, **settings))
        command = [str(self.binary), "serve", "-c", str(path)]
        return self.server(name, command, cores or {self.cores.proxy}, {"BENCH_SECRET": "not-a-secret"})

    def stop(self):
        for server in reversed(self.servers):
            server.stop()


def program(name):
    """Debian keeps both where an ordinary user's PATH does not look."""
    for directory in (*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/usr/local/sbin"):
        if os.access(os.path.join(directory, name), os.X_OK):
            return os.path.join(directory, name)
    raise Failed(f"{name} is not installed")


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [holder.getsockname()[1] for holder in held]
    for holder in held:
        holder.close()
    return ports


def make_certificates(directory):
    """A throw-away authority and a certificate for localhost."""

    def openssl(*arguments):
        done = subprocess.run([program("openssl"), *arguments], cwd=directory, capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise Failed(f"openssl {arguments[0]} failed: {done.stderr.strip()}")

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=throw-away CA",
            "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (Path(directory) / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "san", "-out", "server.pem")
    both = "".join((Path(directory) / name).read_text() for name in ("server.pem", "server.key"))
    (Path(directory) / "both.pem").write_text(both)

"""The processes of a comparison: the origin, the proxies, and how each is told to do the same job."""

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

TOKEN = "not-a-token-but-as-long-as-an-opaque-one-usually-is-0123456789"
BIG = 100 * 1000 * 1000  # bytes of the large body

ORIGIN = """
daemon off; master_process off; pid {dir}/origin.pid; error_log {dir}/origin.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; keepalive_requests 1000000000; open_file_cache max=16;
    client_body_temp_path {dir}/origin-body; client_max_body_size 0;
    proxy_temp_path {dir}/o1; fastcgi_temp_path {dir}/o2; uwsgi_temp_path {dir}/o3; scgi_temp_path {dir}/o4;
    server {{
        listen 127.0.0.1:{plain} backlog=1024;
        listen 127.0.0.1:{tls} ssl backlog=1024;
        ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key; ssl_protocols TLSv1.3;
        location /v1/ {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            alias {dir}/www/;
        }}
        location /up/ {{
            if ($http_authorization != "Bearer {token}") {{ return 401; }}
            alias {dir}/uploads/; dav_methods PUT;
        }}
        location = /token {{
            default_type application/json;
            return 200 '{{"access_token":"{token}","token_type":"bearer","expires_in":86399}}';
        }}
    }}
}}
"""

NGINX = """
daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000; client_max_body_size 0;
    client_body_temp_path {dir}/n0; proxy_temp_path {dir}/n1; fastcgi_temp_path {dir}/n2;
    uwsgi_temp_path {dir}/n3; scgi_temp_path {dir}/n4;
    upstream plain {{ server 127.0.0.1:{plain}; keepalive 64; keepalive_requests 1000000000; }}
    upstream tls {{ server 127.0.0.1:{tls}; keepalive 64; keepalive_requests 1000000000; }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Authorization "Bearer {token}";
    proxy_set_header Host localhost;
    proxy_request_buffering off; proxy_max_temp_file_size 0;
    proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on; proxy_ssl_trusted_certificate {dir}/ca.pem;
    proxy_ssl_name localhost; proxy_ssl_server_name on;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location /plain/ {{ proxy_pass http://plain/; }}
        location /tls/ {{ proxy_pass https://tls/; }}
    }}
}}
"""

# `http-reuse always` and `bytes()` instead of a regular expression: what is cheapest for HAProxy.
HAPROXY = """
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 75s
    timeout server 75s
frontend in
    bind 127.0.0.1:{port} backlog 1024
    use_backend plain if {{ path_beg /plain/ }}
    use_backend tls if {{ path_beg /tls/ }}
backend plain
    http-request set-header Authorization "Bearer {token}"
    http-request set-path %[path,bytes(6)]
    server origin 127.0.0.1:{plain}
backend tls
    http-request set-header Authorization "Bearer {token}"
    http-request set-path %[path,bytes(4)]
    server origin 127.0.0.1:{tls} ssl verify required ca-file {dir}/ca.pem sni str(localhost) ssl-min-ver TLSv1.3
"""

RELAY = """
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 75s
    timeout server 75s
listen relay
    bind 127.0.0.1:{port} backlog 1024
    server origin 127.0.0.1:{plain}
"""

CUPBEARER = """
[server]
listen = "127.0.0.1:0"
workers = 1

[admin]
listen = false

[credentials.bench]
client_id = "bench"
client_secret = {{ env = "BENCH_SECRET" }}
client_auth = "post"
token_url = "http://127.0.0.1:{plain}/token"
scopes = ["bench"]
ca_file = "{dir}/ca.pem"
ip_family = "v4"

[[routes]]
prefix = "/plain"
upstream = "http://127.0.0.1:{plain}"
credential = "bench"
allow = ["GET /**", "PUT /up/*"]

[[routes]]
prefix = "/tls"
upstream = "https://localhost:{tls}"
credential = "bench"
allow = ["GET /**", "PUT /up/*"]
"""


class Failed(Exception):
    """The comparison cannot go on; the text says why."""


@dataclass
class Cores:
    """Who runs where. On a single core everything shares it, and figures mean little."""

    proxy: int
    rest: int

    @staticmethod
    def choose():
        available = sorted(os.sched_getaffinity(0))
        return Cores(available[0], available[min(1, len(available) - 1)])


class Server:
    """A child process on one core, gone when this program is gone, whatever ends it."""

    def __init__(self, name, command, core, env=None, log=None):
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
            preexec_fn=lambda: own(core),
        )
        self.lines = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def said(self):
        text = "".join(self.lines)
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
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

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


def own(core):
    """In the child: pin it, and let it die with its parent (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    os.sched_setaffinity(0, {core})


@dataclass
class Proxy:
    """One candidate: its process, its port, and what the load generator has to say to it."""

    name: str
    server: Server
    port: int
    # A relay adds nothing, so the load generator asks the origin itself.
    relay: bool = False

    def url(self, route, path):
        prefix = "" if self.relay else f"/{route}"
        return f"http://127.0.0.1:{self.port}{prefix}{path}"

    def headers(self):
        return {"Authorization": f"Bearer {TOKEN}"} if self.relay else {}


class Stage:
    """The origin and all candidates of one comparison, in a directory of their own."""

    def __init__(self, directory, binary):
        """`binary`: cupbearer's, or None to compare the peers alone."""
        self.dir = Path(directory)
        self.cores = Cores.choose()
        self.servers = []
        self.proxies = []
        try:
            self._start(binary)
        except BaseException:
            self.stop()
            raise

    def _start(self, binary):
        make_certificates(self.dir)
        for name in ("www", "uploads"):
            (self.dir / name).mkdir()
        (self.dir / "www/1k").write_bytes(os.urandom(1024))
        with open(self.dir / "www/big", "wb") as big:
            block = os.urandom(1000 * 1000)
            for _ in range(BIG // len(block)):
                big.write(block)
        plain, tls, nginx, haproxy, relay = free_ports(5)
        self.ports = {"plain": plain, "tls": tls}

        origin = self._config("origin.conf", ORIGIN)
        origin = self._server("origin", [program("nginx"), "-e", "stderr", "-c", origin], self.cores.rest)
        origin.wait_until(lambda: listens(plain) and listens(tls))

        config = self._config("nginx.conf", NGINX, port=nginx)
        self._proxy("nginx", [program("nginx"), "-e", "stderr", "-c", config], nginx)
        config = self._config("haproxy.cfg", HAPROXY, port=haproxy)
        self._proxy("haproxy", [program("haproxy"), "-db", "-f", config], haproxy)
        config = self._config("relay.cfg", RELAY, port=relay)
        self._proxy("relay", [program("haproxy"), "-db", "-f", config], relay, relay=True)
        if binary:
            config = self._config("proxy.toml", CUPBEARER)
            env = {"BENCH_SECRET": "not-a-secret"}
            server = self._server("cupbearer", [str(binary), "serve", "-c", config], self.cores.proxy, env)
            line = re.compile(r"listening on http://127\.0\.0\.1:(\d+)")
            found = server.wait_until(lambda: line.search("".join(server.lines)))
            self.proxies.insert(0, Proxy("cupbearer", server, int(found[1])))

    def _config(self, name, template, **more):
        path = self.dir / name
        path.write_text(template.format(dir=self.dir, token=TOKEN, **self.ports, **more))
        return str(path)

    def _server(self, name, command, core, env=None):
        server = Server(name, command, core, env, self.dir / f"{name}.log")
        self.servers.append(server)
        return server

    def _proxy(self, name, command, port, relay=False):
        server = self._server(name, command, self.cores.proxy)
        server.wait_until(lambda: listens(port))
        self.proxies.append(Proxy(name, server, port, relay))

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

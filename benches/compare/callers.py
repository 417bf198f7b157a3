"""Callers of our own, where no load generator does what a measurement needs."""

import http.server
import socket
import threading
import time

import configs
from servers import Failed


class Caller:
    """One keep-alive connection to a proxy."""

    def __init__(self, port, patience=10):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), patience)

    def ask(self, path="/plain/v1/1k"):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())

    def status(self):
        """The status of one answer; its body, whose length is told, is read and dropped."""
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._read(answer)
        head, _, body = answer.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        missing = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
        while missing > 0:
            missing -= len(self._read(answer))
        return int(head.split(b" ", 2)[1])

    def _read(self, so_far):
        part = self.socket.recv(65536)
        if not part:
            raise Failed(f"a connection was closed after {so_far[:200]!r}")
        return part

    def close(self):
        self.socket.close()


class TokenEndpoint:
    """Gives a token after `delay` seconds, and counts who asked."""

    def __init__(self, delay):
        endpoint = self
        self.requests = 0

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                endpoint.requests += 1
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(delay)
                body = f'{{"access_token":"{configs.TOKEN}","token_type":"bearer","expires_in":86399}}'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/token"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

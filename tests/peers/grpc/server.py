"""A gRPC server without generated code: server.py [CERTIFICATE KEY]. Prints `READY PORT`. Messages are bytes as they are. It only
serves calls that carry the token."""

import sys
import threading
from concurrent import futures

import grpc

CANCELLED = threading.Event()


def identified(behaviour):
    def judged(request, context):
        tokens = [v for k, v in context.invocation_metadata() if k == "authorization"]
        if tokens != ["Bearer not-a-token-1"]:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"{len(tokens)} tokens")
        return behaviour(request, context)

    return judged


def unary(request, context):
    sent = {k: v for k, v in context.invocation_metadata() if k.startswith("x-")}
    context.send_initial_metadata((("x-initial", sent.get("x-text", "none")), ("x-initial-bin", b"\x00\xff")))
    context.set_trailing_metadata((("x-trailing", "t"), ("x-trailing-bin", sent.get("x-data-bin", b""))))
    return request


def collect(requests, context):
    count, size = 0, 0
    for request in requests:
        count, size = count + 1, size + len(request)
    return f"{count} {size}".encode()


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def chat(requests, context):
    for request in requests:
        yield b"re: " + request


def fail(request, context):
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 % ž\n")


def half(request, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "lost the rest")


def slow(request, context):
    context.add_callback(CANCELLED.set)
    CANCELLED.wait(25)
    return b""


def cancelled(request, context):
    seen = CANCELLED.wait(25)
    CANCELLED.clear()
    return str(seen).encode()


def remaining(request, context):
    return str(context.time_remaining()).encode()


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(identified(unary)),
    "Collect": grpc.stream_unary_rpc_method_handler(identified(collect)),
    "Count": grpc.unary_stream_rpc_method_handler(identified(count)),
    "Chat": grpc.stream_stream_rpc_method_handler(identified(chat)),
    "Fail": grpc.unary_unary_rpc_method_handler(identified(fail)),
    "Half": grpc.unary_stream_rpc_method_handler(identified(half)),
    "Slow": grpc.unary_unary_rpc_method_handler(identified(slow)),
    "Cancelled": grpc.unary_unary_rpc_method_handler(identified(cancelled)),
    "Remaining": grpc.unary_unary_rpc_method_handler(identified(remaining)),
}

server = grpc.server(
    futures.ThreadPoolExecutor(16),
    options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", METHODS),))
if len(sys.argv) > 1:
    certificate, key = (open(path, "rb").read() for path in sys.argv[1:3])
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, certificate)]))
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print("READY", port, flush=True)
server.wait_for_termination()

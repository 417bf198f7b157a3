"""A gRPC client without generated code: client.py ADDRESS [CA]. Makes calls of every kind and ends with 0 if each came out as a
direct call would."""

import os
import queue
import sys
import time
from concurrent import futures

import grpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
if len(sys.argv) > 2:
    credentials = grpc.ssl_channel_credentials(open(sys.argv[2], "rb").read())
    channel = grpc.secure_channel(sys.argv[1], credentials, options=OPTIONS)
else:
    channel = grpc.insecure_channel(sys.argv[1], options=OPTIONS)
SERVICE = "/test.Service/"


def refused(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("no error")


def unary():
    call = channel.unary_unary(SERVICE + "Unary")
    for size in [0, 1, 16_379, 16_384, 100_000, 4 << 20]:
        message = os.urandom(size)
        assert call(message, timeout=20) == message, size


def metadata():
    call = channel.unary_unary(SERVICE + "Unary")
    sent = (("x-text", "a, b; c"), ("x-data-bin", b"\x00\x01\xfe\xff"), ("authorization", "Bearer mine"))
    answer, done = call.with_call(b"m", metadata=sent, timeout=20)
    initial = dict(done.initial_metadata())
    assert initial["x-initial"] == "a, b; c" and initial["x-initial-bin"] == b"\x00\xff", initial
    trailing = dict(done.trailing_metadata())
    assert trailing["x-trailing"] == "t" and trailing["x-trailing-bin"] == b"\x00\x01\xfe\xff", trailing


def streams():
    collect = channel.stream_unary(SERVICE + "Collect")
    assert collect(iter([b"x" * 1000] * 500), timeout=20) == b"500 500000"
    assert collect(iter([]), timeout=20) == b"0 0"
    count = channel.unary_stream(SERVICE + "Count")
    assert list(count(b"500", timeout=20)) == [str(n).encode() for n in range(500)]
    assert list(count(b"0", timeout=20)) == []


def chat():
    """Each message is answered before the next is sent: nothing may be held back on the way."""
    messages = queue.Queue()
    answers = channel.stream_stream(SERVICE + "Chat")(iter(messages.get, None), timeout=25)
    for number in range(50):
        messages.put(str(number).encode())
        assert next(answers) == f"re: {number}".encode()
    messages.put(None)
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def errors():
    """A status without a message before it comes in the trailers alone, or in the head alone."""
    error = refused(lambda: channel.unary_unary(SERVICE + "Fail")(b"", timeout=20))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "not now: 100 % ž\n", error.details()
    assert dict(error.trailing_metadata())["x-why"] == "because"
    error = refused(lambda: channel.unary_unary(SERVICE + "Nothing")(b"", timeout=20))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
    answers = channel.unary_stream(SERVICE + "Half")(b"", timeout=20)
    assert next(answers) == b"one"
    error = refused(lambda: next(answers))
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "lost the rest"), error


def cancelling():
    """A deadline and a caller's change of mind reach the server."""
    slow = channel.unary_unary(SERVICE + "Slow")
    seen = channel.unary_unary(SERVICE + "Cancelled")
    error = refused(lambda: slow(b"", timeout=0.4))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert seen(b"", timeout=25) == b"True"
    call = slow.future(b"", timeout=20)
    time.sleep(0.3)
    call.cancel()
    assert seen(b"", timeout=25) == b"True"
    left = float(channel.unary_unary(SERVICE + "Remaining")(b"", timeout=20))
    assert 10 < left < 21, left


def compression():
    call = channel.unary_unary(SERVICE + "Unary")
    assert call(b"z" * 500_000, compression=grpc.Compression.Gzip, timeout=20) == b"z" * 500_000


def many():
    call = channel.unary_unary(SERVICE + "Unary")
    with futures.ThreadPoolExecutor(20) as pool:
        sent = [os.urandom(3000) for _ in range(400)]
        assert list(pool.map(lambda message: call(message, timeout=25), sent)) == sent


def refusals():
    """What the proxy itself refuses is a status by gRPC's mapping of HTTP statuses."""
    for path, code in [
        ("/nowhere.Service/Unary", grpc.StatusCode.UNIMPLEMENTED),
        ("/test.Denied/Unary", grpc.StatusCode.PERMISSION_DENIED),
        ("/test.Tokenless/Unary", grpc.StatusCode.UNAVAILABLE),
        ("/test.Away/Unary", grpc.StatusCode.UNAVAILABLE),
    ]:
        error = refused(lambda: channel.unary_unary(path)(b"", timeout=20))
        assert error.code() == code, (path, error)
        print("  ", path, error.code().name, repr(error.details()))


for check in [unary, metadata, streams, chat, errors, cancelling, compression, many, refusals]:
    check()
    print("ok", check.__name__, flush=True)

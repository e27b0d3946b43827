"""Requests that no honest client sends, as bytes, and what must come back.

A probe is what to send, and the statuses that are right: one request in it, one status out. `CLOSED`
stands for a connection that is closed without an answer. The corpus is data: hostile_bodies.py,
hostile_frames.py, hostile_requests.py. test_hostile.py sends it to the running site, and to sites with a
guard removed.
"""

import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, NamedTuple
from uuid import uuid4

from sales.identity import mint

CLOSED = 0
DEADLINE = 20.0  # seconds for a whole exchange; a site that needs more of them hangs
GOOD = b'{"quantity":1}'
Header = tuple[str, str | bytes]


class Stage(NamedTuple):
    """What a probe is made for: an open sale, and a buyer of its own."""

    slug: str
    customer: str

    @property
    def token(self) -> str:
        return mint(self.customer)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Sent(NamedTuple):
    """Pieces that leave one after the other, each in a packet of its own where it can."""

    pieces: list[bytes]
    then: Literal["read", "half-close", "hang-up"] = "read"


class Probe(NamedTuple):
    """`or_else` is right as well where it depends on the moment how much is answered."""

    send: Callable[[Stage], bytes | Sent]
    right: tuple[frozenset[int], ...]
    or_else: tuple[frozenset[int], ...] = ()


def order(
    stage: Stage,
    body: bytes = GOOD,
    *headers: Header,
    line: str | bytes = "",
    drop: tuple[str, ...] = (),
    length: str | None = "",
    last: bool = True,
    key: str | bytes | None = None,
) -> bytes:
    """An order as bytes. `length` is its Content-Length: "" for the true one, None for none at all."""
    usual: list[Header] = [
        ("Host", "127.0.0.1"),
        ("Authorization", f"Bearer {stage.token}"),
        ("Idempotency-Key", key or uuid4().hex),
        ("Content-Type", "application/json"),
        ("Accept", "application/json"),
    ]
    if length is not None:
        usual.append(("Content-Length", length or str(len(body))))
    if last:  # the site closes afterwards, so that the end of what it says is known
        usual.append(("Connection", "close"))
    line = line or f"POST /api/v1/sales/{stage.slug}/orders HTTP/1.1"
    kept = [header for header in usual if header[0] not in drop]
    head = [_bytes(line), *(_bytes(name) + b": " + _bytes(value) for name, value in [*kept, *headers])]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def get(stage: Stage, path: str | bytes, *headers: Header, method: str = "GET", last: bool = True) -> bytes:
    line = method.encode() + b" " + _bytes(path) + b" HTTP/1.1"
    return order(stage, b"", *headers, line=line, length=None, last=last, drop=("Content-Type",))


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def exchange(port: int, sent: bytes | Sent, deadline: float = DEADLINE) -> list[Reply]:
    """Sends everything while reading everything; the replies until the site closes.

    Raises TimeoutError when it does not within so many seconds.
    """
    pieces, then = sent if isinstance(sent, Sent) else Sent([sent])
    received, until = bytearray(), time.monotonic() + deadline
    with socket.create_connection(("127.0.0.1", port), timeout=deadline) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if then == "hang-up":
            _send(connection, pieces, then)
            return []
        sender = threading.Thread(target=_send, args=(connection, pieces, then))
        sender.start()
        with suppress(ConnectionResetError):  # it closed with some of our bytes unread
            while data := connection.recv(65536):
                received += data
                connection.settimeout(max(0.01, until - time.monotonic()))
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        sender.join(deadline)
        assert not sender.is_alive()
    return replies(bytes(received))


def _send(connection: socket.socket, pieces: list[bytes], then: str) -> None:
    with suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)
        if then == "half-close":
            connection.shutdown(socket.SHUT_WR)


def replies(received: bytes) -> list[Reply]:
    """Finished HTTP/1.1 answers, one after the other; interim ones are left out."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        body, received = _body(headers, rest)
        if (status := int(line.split()[1])) >= 200:
            found.append(Reply(status, headers, body))
    return found


def _body(headers: dict[str, str], rest: bytes) -> tuple[bytes, bytes]:
    """The body that these headers announce, and what stands behind it."""
    if headers.get("transfer-encoding") != "chunked":
        length = int(headers.get("content-length", 0))
        return rest[:length], rest[length:]
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        chunk, rest = rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        if not chunk:
            return body, rest
        body += chunk


def of(*right: int) -> tuple[frozenset[int], ...]:
    """One request, any of these statuses."""
    return (frozenset(right),)


def wrong(probe: Probe, found: list[Reply]) -> Any:
    """What is wrong with these replies to a probe; None when they are right."""
    statuses = [reply.status for reply in found]
    if not (_fits(statuses, probe.right) or (probe.or_else and _fits(statuses, probe.or_else))):
        return statuses
    for reply in found:
        if reply.headers.get("x-injected"):
            return "a header of the client's making"
        kind = reply.headers.get("content-type", "")
        if (
            kind == "application/problem+json"
            and json.loads(reply.body or "{}").get("status", reply.status) != reply.status
        ):
            return reply.body
    return None


def _fits(statuses: list[int], right: tuple[frozenset[int], ...]) -> bool:
    padded = statuses + [CLOSED] * (len(right) - len(statuses))
    return len(padded) == len(right) and all(map(frozenset.__contains__, right, padded))

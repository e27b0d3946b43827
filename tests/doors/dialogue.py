"""A connection that is spoken to and listened to in turns: what came back, to the last header."""

import select
import socket
import time
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from tests.doors.kernel import unread

DEADLINE = 20.0  # seconds of silence; a site that needs more of them hangs


class Answer(NamedTuple):
    """One answer as it was written; header names in lower case, in their order, each as often as it came."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)


class Broken(Exception):
    """The connection ended in the middle of an answer."""


class Dialogue:
    """One TCP connection to a port of this machine. Opened, then closed, also by `with`."""

    def __init__(self, port: int, *, receive_bytes: int | None = None) -> None:
        self._socket = socket.socket()
        if receive_bytes is not None:  # before connecting, or the window is negotiated without it
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self._socket.settimeout(DEADLINE)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self.interim: list[int] = []  # the statuses below 200 that came before answers

    def say(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own where it can; silent when the other side has gone."""
        with suppress(ConnectionError):
            for piece in pieces:
                self._socket.sendall(piece)

    def say_apart(self, *pieces: bytes) -> None:
        """Each piece when the other side has read the one before: no two of them are read at once."""
        for piece in pieces:
            self.say(piece)
            self.wait_until_read()

    def wait_until_read(self) -> None:
        """Until the other side has read all that was said. Fails after DEADLINE."""
        until = time.monotonic() + DEADLINE
        while unread(self._socket.getpeername()[1], self._socket.getsockname()[1]):
            assert time.monotonic() < until, "the other side does not read"

    def say_what_fits(self, piece: bytes, *, patience: float) -> int:
        """How many bytes the other side has taken when it takes none for `patience` seconds."""
        self._socket.settimeout(patience)
        sent = 0
        with suppress(TimeoutError):
            while sent < len(piece):
                sent += self._socket.send(piece[sent : sent + 65536])
        self._socket.settimeout(DEADLINE)
        return sent

    def end(self) -> None:
        """Says that nothing more comes; what the other side says can still be heard."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def hear(self, *, bodiless: bool = False) -> Answer | None:
        """The next answer, interim ones counted and left out; None when the connection ends instead.

        `bodiless` for what HEAD is answered. Raises Broken, and TimeoutError after DEADLINE.
        """
        while (answer := self._head()) is not None and answer.status < 200:
            self.interim.append(answer.status)
        return answer and answer._replace(body=self._body(answer, bodiless))

    def hear_interim(self) -> None:
        """One interim answer, counted in `interim`. Fails when a final one comes."""
        answer = self._head()
        assert answer is not None, "the connection ended instead"
        assert answer.status < 200, answer
        self.interim.append(answer.status)

    def says_something(self, *, within: float) -> bool:
        """Whether there is something to hear, if only the end, within so many seconds."""
        return bool(self._unread or select.select([self._socket], [], [], within)[0])

    def ended(self) -> bool:
        """Whether the other side closes now, without another byte."""
        return self.hear() is None

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _head(self) -> Answer | None:
        while b"\r\n\r\n" not in self._unread:
            if not self._more():
                if self._unread:
                    raise Broken(self._unread[:200])
                return None
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = [
            (name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in lines)
        ]
        return Answer(line, headers, b"")

    def _body(self, answer: Answer, bodiless: bool) -> bytes:
        if bodiless or answer.status in (204, 304):
            return b""
        if answer.header("transfer-encoding") != "chunked":
            if (length := answer.header("content-length")) is not None:
                return self._take(int(length))
            while self._more():  # RFC 9112, 6.3: it ends with the connection
                pass
            return self._take(len(self._unread))
        body = b""
        while size := int(self._line(), 16):
            body += self._take(size)
            self._line()
        self._line()
        return body

    def _line(self) -> bytes:
        while b"\r\n" not in self._unread:
            self._more_or_break()
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line

    def _take(self, size: int) -> bytes:
        while len(self._unread) < size:
            self._more_or_break()
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    def _more_or_break(self) -> None:
        if not self._more():
            raise Broken(self._unread[:200])

    def _more(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:  # it closed with some of our bytes unread
            return False
        self._unread += data
        return bool(data)

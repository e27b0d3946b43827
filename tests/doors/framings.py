"""Where a request ends, said wrongly, doubtfully or twice: what could smuggle a second request past a proxy.

Each framing is an order in other clothes, and what the doors make of it: `ORDER` is answered 202, `REFUSED`
is answered 400 (408 where more is waited for) and nothing behind it is read.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from tests.site.hostile import GOOD, Header, Stage, chunked, order

LENGTH, CODING = "Content-Length", "Transfer-Encoding"
CHUNKS = chunked(GOOD)


class Verdict(Enum):
    ORDER = "an order"
    REFUSED = "refused"
    OTHER = "another request"


ORDER, REFUSED, OTHER = Verdict.ORDER, Verdict.REFUSED, Verdict.OTHER


class Framing(NamedTuple):
    """`h11` is what h11 says where it says otherwise, and `why` the reason for the difference."""

    make: Callable[[Stage], bytes]
    verdict: Verdict
    h11: Verdict | None = None
    why: str = ""


def by_headers(*headers: Header, body: bytes = GOOD) -> Callable[[Stage], bytes]:
    """An order with these headers and no length but theirs."""
    return lambda stage: order(stage, body, *headers, key="k-1", length=None, last=False)


def changed(old: bytes, new: bytes) -> Callable[[Stage], bytes]:
    """A good order with some bytes changed for others."""

    def make(stage: Stage) -> bytes:
        whole = order(stage, key="k-1", last=False)
        assert old in whole
        return whole.replace(old, new)

    return make


def _lengths() -> dict[str, Framing]:
    good, other = str(len(GOOD)), str(len(GOOD) - 1)
    return {
        f"length: {value[:24]!r}": Framing(by_headers((LENGTH, value)), verdict)
        for value, verdict in (
            (good, ORDER),
            (f"{good} ", ORDER),
            (f"000{good}", ORDER),
            (f"+{good}", REFUSED),
            (f"-{good}", REFUSED),
            (hex(len(GOOD)), REFUSED),
            (f"{good}.0", REFUSED),
            (f"{good}e0", REFUSED),
            ("1_4", REFUSED),
            ("1 4", REFUSED),
            ("", REFUSED),
            ("9" * 25, REFUSED),
            ("٤", REFUSED),
            ("\x0b14", REFUSED),
            (f"{good};", REFUSED),
            (f"{good},{other}", REFUSED),
        )
    } | {
        "length: the same twice": Framing(
            by_headers((LENGTH, good), (LENGTH, good)),
            REFUSED,
            h11=ORDER,
            why="RFC 9110, 8.6 lets a server choose: llhttp refuses repeated lengths, h11 takes equal ones",
        ),
        "length: the same twice, with a comma": Framing(
            by_headers((LENGTH, f"{good}, {good}")), REFUSED, h11=ORDER, why="the same choice"
        ),
        "length: two that differ": Framing(by_headers((LENGTH, good), (LENGTH, other)), REFUSED),
        "length: two that differ, turned round": Framing(
            by_headers((LENGTH, other), (LENGTH, good)), REFUSED
        ),
    }


def _codings() -> dict[str, Framing]:
    def framed(value: str, verdict: Verdict, **more: object) -> Framing:
        return Framing(by_headers((CODING, value), body=CHUNKS), verdict, **more)  # type: ignore[arg-type]

    return {
        "coding: chunked": framed("chunked", ORDER),
        "coding: CHUNKED": framed("CHUNKED", ORDER),
        "coding: white space before it": framed("  \tchunked", ORDER),
        "coding: white space behind it": framed(
            "chunked \t", REFUSED, h11=ORDER, why="RFC 9112, 5 allows it"
        ),
        "coding: identity": framed("identity", REFUSED),
        "coding: xchunked": framed("xchunked", REFUSED),
        "coding: chunkedx": framed("chunkedx", REFUSED),
        "coding: quoted": framed('"chunked"', REFUSED),
        "coding: chunked, then identity": framed("chunked, identity", REFUSED),
        "coding: a vertical tab": framed("\x0bchunked", REFUSED),
        "coding: gzip, then chunked": framed(
            "gzip, chunked", ORDER, h11=REFUSED, why="h11 knows no other coding than chunked"
        ),
        "coding: chunked twice": framed("chunked, chunked", REFUSED),
        "coding: and a length": Framing(by_headers((CODING, "chunked"), (LENGTH, "4"), body=CHUNKS), REFUSED),
        "coding: behind a length": Framing(
            by_headers((LENGTH, "4"), (CODING, "chunked"), body=CHUNKS), REFUSED
        ),
        "coding: its name with underscores, and a length": Framing(
            by_headers((LENGTH, str(len(GOOD))), ("Transfer_Encoding", "chunked")), ORDER
        ),
        "coding: HTTP/1.0": Framing(
            lambda stage: order(
                stage,
                CHUNKS,
                (CODING, "chunked"),
                key="k-1",
                length=None,
                last=False,
                line=f"POST /api/v1/sales/{stage.slug}/orders HTTP/1.0",
            ),
            ORDER,
        ),
    }


def _chunks() -> dict[str, Framing]:
    return {
        f"chunk: {name}": Framing(by_headers((CODING, "chunked"), body=body), verdict)
        for name, body, verdict in (
            ("one", CHUNKS, ORDER),
            ("with an extension", b"e;a=b\r\n" + GOOD + b"\r\n0\r\n\r\n", ORDER),
            ("with a quoted extension", b'e;a="b"\r\n' + GOOD + b"\r\n0\r\n\r\n", ORDER),
            ("with trailers", chunked(GOOD, end=b"0\r\nX: y\r\n\r\n"), ORDER),
            ("no number", b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n", REFUSED),
            ("no digits", b"\r\n" + GOOD + b"\r\n0\r\n\r\n", REFUSED),
            ("0x", b"0xe\r\n" + GOOD + b"\r\n0\r\n\r\n", REFUSED),
            ("signed", b"+e\r\n" + GOOD + b"\r\n0\r\n\r\n", REFUSED),
            ("negative", b"-e\r\n" + GOOD + b"\r\n0\r\n\r\n", REFUSED),
            ("2**64 bytes", b"10000000000000000\r\n" + GOOD, REFUSED),
            ("2**64 bytes and more", b"f" * 40 + b"\r\n" + GOOD, REFUSED),
            ("longer than it says", b"d\r\n" + GOOD + b"\r\n0\r\n\r\n", REFUSED),
            ("shorter than it says", b"f\r\n" + GOOD + b"\r\n0\r\n\r\n", REFUSED),
            ("a bare line feed behind the number", b"e\n" + GOOD + b"\r\n0\r\n\r\n", REFUSED),
            ("a bare line feed behind the data", b"e\r\n" + GOOD + b"\n0\r\n\r\n", REFUSED),
            ("a line feed in an extension", b"e;a\nb\r\n" + GOOD + b"\r\n0\r\n\r\n", REFUSED),
            ("a space before the number", b" e\r\n" + GOOD + b"\r\n0\r\n\r\n", REFUSED),
            ("a trailer without a colon", chunked(GOOD, end=b"0\r\nX\r\n\r\n"), REFUSED),
        )
    }


def _heads() -> dict[str, Framing]:
    return {
        f"head: {name}": Framing(changed(old, new), verdict)
        for name, old, new, verdict in (
            ("space before the colon", b"Content-Length:", b"Content-Length :", REFUSED),
            ("tab before the colon", b"Content-Length:", b"Content-Length\t:", REFUSED),
            ("no space behind the colon", b"Content-Length: ", b"Content-Length:", ORDER),
            ("tab behind the colon", b"Content-Length: ", b"Content-Length:\t", ORDER),
            ("a name in capitals", b"Content-Length:", b"CONTENT-LENGTH:", ORDER),
            (
                "a folded coding",
                b"Content-Length: ",
                b"Transfer-Encoding:\r\n chunked\r\nContent-Length: ",
                REFUSED,
            ),
            ("no colon", b"Accept: ", b"Accept ", REFUSED),
            ("no name", b"Accept: ", b": ", REFUSED),
            ("NUL in a name", b"Accept: ", b"Acc\0ept: ", REFUSED),
            ("NUL in a value", b"Accept: ", b"Accept: a\0b", REFUSED),
            ("a bare carriage return in a value", b"Accept: ", b"Accept: a\rb", REFUSED),
            ("a bare carriage return behind a value", b"\r\nAccept: ", b"\rAccept: ", REFUSED),
            (
                "a smuggled length behind a line feed",
                b"Accept: ",
                b"X: y\nContent-Length: 0\r\nAccept: ",
                REFUSED,
            ),
            ("brackets in a name", b"Accept: ", b"Acc(ept: ", REFUSED),
            ("bytes in a name", b"Accept: ", b"Acc\xe9pt: ", REFUSED),
            ("bytes in a value", b"Accept: ", b"Accept: \xe9, ", ORDER),
            ("a tab in the request line", b"POST /", b"POST\t/", REFUSED),
            ("version 1.10", b" HTTP/1.1", b" HTTP/1.10", REFUSED),
            ("http in small letters", b" HTTP/1.1", b" http/1.1", REFUSED),
            ("space behind the version", b" HTTP/1.1", b" HTTP/1.1 ", REFUSED),
            ("a space in the address", b"/orders", b"/or ders", REFUSED),
        )
    }


def _apart() -> dict[str, Framing]:
    """Where the two parsers differ beside lengths and codings."""
    lines = "RFC 9112, 2.2 lets a recipient take a bare line feed for the end of a line; llhttp does not"
    folds = "h11 unfolds lines into the one above, as RFC 9112, 5.2 allows"
    spaces = "RFC 9112, 3 lets a recipient split the line by any white space"
    versions = "llhttp lets them pass and ends the connection behind them"
    extension = b"e;a\rb\r\n" + GOOD + b"\r\n0\r\n\r\n"
    return {
        "chunk: a bare carriage return in an extension": Framing(
            by_headers((CODING, "chunked"), body=extension), REFUSED, h11=ORDER, why="h11 reads up to CR LF"
        ),
        **{
            f"head: {name}": Framing(changed(old, new), verdict, h11=h11, why=why)
            for name, old, new, verdict, h11, why in (
                ("a bare line feed behind a value", b"\r\nAccept: ", b"\nAccept: ", REFUSED, ORDER, lines),
                ("a bare line feed behind the head", b"\r\n\r\n", b"\r\n\n", REFUSED, ORDER, lines),
                ("a bare line feed behind the line", b" HTTP/1.1\r\n", b" HTTP/1.1\n", REFUSED, ORDER, lines),
                (
                    "a folded line",
                    b"Accept: ",
                    b"Accept: x,\r\n ",
                    REFUSED,
                    ORDER,
                    folds,
                ),
                (
                    "a folded length",
                    b"Content-Length:",
                    b" Content-Length:",
                    REFUSED,
                    OTHER,
                    folds,
                ),
                (
                    "two spaces in the line",
                    b"POST /",
                    b"POST  /",
                    ORDER,
                    REFUSED,
                    spaces,
                ),
                ("no version", b" HTTP/1.1", b"", ORDER, REFUSED, versions),
                ("version 2.0", b" HTTP/1.1", b" HTTP/2.0", ORDER, ORDER, versions),
                ("version 1.2", b" HTTP/1.1", b" HTTP/1.2", REFUSED, ORDER, "h11 knows 1.x"),
            )
        },
    }


FRAMINGS = _lengths() | _codings() | _chunks() | _heads() | _apart()

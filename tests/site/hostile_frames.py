"""Where one request ends and the next begins, and connections that end before either."""

from collections.abc import Callable

from tests.site.hostile import CLOSED, GOOD, Header, Probe, Sent, Stage, chunked, get, of, order

_SMUGGLED = b"POST /admin/ HTTP/1.1\r\nHost: x\r\n\r\n"
_CHUNKS = chunked(GOOD)


def _framed(body: bytes, *headers: Header, length: str | None = None) -> Callable[[Stage], bytes]:
    return lambda stage: order(stage, body, *headers, length=length)


FRAMES: dict[str, Probe] = {
    "frame: no length": Probe(_framed(b""), of(422)),
    # The hot door answers what is whole at once; the others are told of the noise behind it first.
    "frame: no length, and a body": Probe(
        lambda s: order(s, GOOD, length=None, last=False), of(400), of(422) + of(400)
    ),
    "frame: empty length": Probe(_framed(GOOD, ("Content-Length", "")), of(400)),
    "frame: negative length": Probe(_framed(GOOD, length="-14"), of(400)),
    "frame: signed length": Probe(_framed(GOOD, length="+14"), of(400)),
    "frame: length of 25 digits": Probe(_framed(GOOD, length="9" * 25), of(400)),
    "frame: hexadecimal length": Probe(_framed(GOOD, length="0xe"), of(400)),
    "frame: length with a comma": Probe(_framed(GOOD, length="14, 14"), of(400)),
    "frame: length with a space": Probe(_framed(GOOD, length="1 4"), of(400)),
    "frame: length as text": Probe(_framed(GOOD, length="fourteen"), of(400)),
    "frame: two lengths": Probe(_framed(GOOD, ("Content-Length", "14"), length="14"), of(400)),
    "frame: two lengths that differ": Probe(_framed(GOOD, ("Content-Length", "0"), length="14"), of(400)),
    "frame: too short a length": Probe(
        lambda s: order(s, GOOD, length="5", last=False), of(400), of(400) * 2
    ),
    "frame: too long a length": Probe(lambda s: Sent([order(s, GOOD, length="400")], "hang-up"), of(CLOSED)),
    "frame: length and chunks": Probe(
        _framed(_CHUNKS, ("Transfer-Encoding", "chunked"), length=str(len(_CHUNKS))), of(400)
    ),
    "frame: chunks and a length of 0": Probe(
        _framed(_CHUNKS, ("Transfer-Encoding", "chunked"), length="0"), of(400)
    ),
    "frame: smuggled behind chunks": Probe(
        _framed(b"0\r\n\r\n" + _SMUGGLED, ("Transfer-Encoding", "chunked"), length="4"), of(400)
    ),
    "frame: smuggled behind a length": Probe(
        _framed(b"0\r\n\r\n" + _SMUGGLED, ("Transfer-Encoding", "chunked"), ("Content-Length", "4")), of(400)
    ),
    "frame: another encoding": Probe(_framed(_CHUNKS, ("Transfer-Encoding", "xchunked")), of(400)),
    "frame: chunked, then identity": Probe(
        _framed(_CHUNKS, ("Transfer-Encoding", "chunked, identity")), of(400)
    ),
    "frame: space before the colon": Probe(_framed(_CHUNKS, ("Transfer-Encoding ", "chunked")), of(400)),
    "frame: a chunk of no number": Probe(
        _framed(b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n", ("Transfer-Encoding", "chunked")), of(400)
    ),
    "frame: a chunk of 2**64 bytes": Probe(
        _framed(b"10000000000000000\r\n" + GOOD, ("Transfer-Encoding", "chunked")), of(400)
    ),
    "frame: a negative chunk": Probe(_framed(b"-e\r\n" + GOOD, ("Transfer-Encoding", "chunked")), of(400)),
    "frame: trailers": Probe(
        _framed(chunked(GOOD, end=b"0\r\nIdempotency-Key: other\r\n\r\n"), ("Transfer-Encoding", "chunked")),
        of(202),
    ),
    "frame: the key in the trailers": Probe(
        lambda s: order(
            s,
            chunked(GOOD, end=b"0\r\nIdempotency-Key: other\r\n\r\n"),
            ("Transfer-Encoding", "chunked"),
            length=None,
            drop=("Idempotency-Key",),
        ),
        of(400),
    ),
    "frame: expects to be asked": Probe(
        lambda s: Sent([order(s, b"", ("Expect", "100-continue"), length="14"), GOOD]), of(202)
    ),
    "frame: expects too much": Probe(
        lambda s: order(s, b"", ("Expect", "100-continue"), length="10000000"), of(413)
    ),
    "frame: expects nonsense": Probe(lambda s: order(s, GOOD, ("Expect", "a miracle")), of(202)),
    "frame: upgrade to a socket": Probe(
        lambda s: get(s, "/livez", ("Connection", "Upgrade"), ("Upgrade", "websocket"), last=False), of(200)
    ),
    "frame: an order behind an upgrade": Probe(
        lambda s: get(s, "/livez", ("Connection", "Upgrade"), ("Upgrade", "h2c"), last=False) + order(s),
        (frozenset({200}), frozenset({CLOSED})),
    ),
    "frame: an order that upgrades": Probe(
        lambda s: order(s, GOOD, ("Connection", "Upgrade"), ("Upgrade", "h2c"), last=False), of(400)
    ),
    "frame: connect elsewhere": Probe(lambda s: get(s, "elsewhere.example:443", method="CONNECT"), of(400)),
    "frame: HTTP/2 at once": Probe(lambda s: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", of(400)),
    "frame: HTTP/9.9": Probe(lambda s: order(s, line="POST /api/v1/sales HTTP/9.9"), of(400)),
    "frame: HTTP/0.9": Probe(lambda s: b"GET /livez\r\n\r\n", of(200)),
    "frame: HTTP/1.0": Probe(
        lambda s: order(s, line=f"POST /api/v1/sales/{s.slug}/orders HTTP/1.0"), of(202)
    ),
    "frame: TLS": Probe(lambda s: bytes.fromhex("16030100a5010000a10303") + b"\x7f" * 160, of(400)),
    "frame: noise": Probe(lambda s: bytes(range(256)) * 40, of(400)),
    "frame: nothing but lines": Probe(lambda s: b"\r\n" * 4000 + order(s), of(202)),
    "frame: half-closed behind an order": Probe(lambda s: Sent([order(s)], "half-close"), of(202, CLOSED)),
    "frame: half-closed in the body": Probe(
        lambda s: Sent([order(s, GOOD[:7], length="14")], "half-close"), of(CLOSED, 400)
    ),
    "frame: half-closed in the head": Probe(lambda s: Sent([order(s)[:60]], "half-close"), of(CLOSED, 400)),
    "frame: gone in the head": Probe(lambda s: Sent([order(s)[:60]], "hang-up"), of(CLOSED)),
    "frame: gone in the body": Probe(
        lambda s: Sent([order(s, GOOD[:7], length="14")], "hang-up"), of(CLOSED)
    ),
    "frame: gone in a chunk": Probe(
        lambda s: Sent([order(s, b"e\r\n{", ("Transfer-Encoding", "chunked"), length=None)], "hang-up"),
        of(CLOSED),
    ),
    "frame: gone behind an order": Probe(lambda s: Sent([order(s)], "hang-up"), of(CLOSED)),
    "frame: 50 questions in a packet": Probe(
        lambda s: b"".join(get(s, f"/api/v1/sales/{s.slug}", last=i == 49) for i in range(50)), of(200) * 50
    ),
    "frame: 20 orders in a packet": Probe(
        lambda s: b"".join(order(s, last=i == 19) for i in range(20)), of(202) * 20
    ),
    "frame: one order 20 times": Probe(
        lambda s: b"".join(order(s, last=i == 19, key="again") for i in range(20)), of(202) * 20
    ),
    "frame: noise behind a question": Probe(lambda s: get(s, "/livez", last=False) + b"\0\0\0\0", of(400)),
    # The order may be placed all the same: who is told 400 here repeats it with its key.
    "frame: noise behind an order": Probe(lambda s: order(s, last=False) + b"\0\0\0\0", of(400)),
}

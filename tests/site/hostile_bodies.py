"""Bodies that are not an order."""

import gzip
import json
from functools import partial

from tests.site.hostile import CLOSED, GOOD, Probe, Sent, chunked, of, order

REFUSED_BODIES = {
    "nothing": (b"", 422),
    "NUL": (b"\0", 400),
    "NUL behind the body": (GOOD + b"\0", 400),
    "not UTF-8": (b'{"quantity":1,"a":"\xff\xfe"}', 400),
    "overlong UTF-8": (b'{"quantity":1,"\xc0\xaf":1}', 400),
    "surrogate in UTF-8": (b'{"quantity":1,"\xed\xa0\x80":1}', 400),
    "UTF-16": (GOOD.decode().encode("utf-16"), 400),
    "UTF-32": (GOOD.decode().encode("utf-32"), 400),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, 400),
    "lone surrogate as a name": (b'{"quantity":1,"\\ud800":1}', 422),
    "lone surrogate as a value": (b'{"quantity":"\\udfff"}', 422),
    "NUL in a name": (b'{"quantity":1,"\\u0000":1}', 422),
    "a name twice": (b'{"quantity":1,"quantity":1}', 400),
    "a name twice, other value": (b'{"quantity":1,"quantity":1000000}', 400),
    "a name twice, escaped": (b'{"quantity":1,"qu\\u0061ntity":5}', 400),
    "a name twice, below": (b'{"quantity":1,"a":{"b":1,"b":2}}', 400),
    "NaN": (b'{"quantity":NaN}', 400),
    "Infinity": (b'{"quantity":Infinity}', 400),
    "minus Infinity": (b'{"quantity":-Infinity}', 400),
    "1e400": (b'{"quantity":1e400}', 422),
    "true": (b'{"quantity":true}', 422),
    "text": (b'{"quantity":"3"}', 422),
    "3.0": (b'{"quantity":3.0}', 422),
    "1e0": (b'{"quantity":1e0}', 422),
    "null": (b'{"quantity":null}', 422),
    "a list": (b'{"quantity":[1]}', 422),
    "zero": (b'{"quantity":0}', 422),
    "minus zero": (b'{"quantity":-0}', 422),
    "minus one": (b'{"quantity":-1}', 422),
    "leading zero": (b'{"quantity":01}', 400),
    "hexadecimal": (b'{"quantity":0x1}', 400),
    "underscores": (b'{"quantity":1_0}', 400),
    "20 digits": (b'{"quantity":' + b"9" * 20 + b"}", 422),
    "4,000 digits": (b'{"quantity":' + b"9" * 4000 + b"}", 422),
    "2**63": (b'{"quantity":9223372036854775808}', 422),
    "Arabic digits": ('{"quantity":"١"}'.encode(), 422),
    "open lists": (b"[" * 4096, 400),
    "deep lists": (b"[" * 2048 + b"]" * 2048, 400),
    "deep objects": (b'{"a":' * 680 + b"1" + b"}" * 680, 422),
    "many names": (json.dumps({f"n{i}": i for i in range(280)}).encode(), 422),
    "a huge name": (b'{"quantity":1,"' + b"n" * 4000 + b'":1}', 422),
    "another's name": (b'{"quantity":1,"customer":"ann"}', 422),
    "a price": (b'{"quantity":1,"unit_price":"0.01"}', 422),
    "__proto__": (b'{"quantity":1,"__proto__":{"quantity":2}}', 422),
    "two values": (GOOD + GOOD, 400),
    "a comment": (b'{"quantity":1/**/}', 400),
    "a comma too many": (b'{"quantity":1,}', 400),
    "single quotes": (b"{'quantity':1}", 400),
    "a form": (b"quantity=1", 400),
    "XML": (b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', 400),
    "compressed": (gzip.compress(GOOD), 400),
    "a value only": (b"1", 422),
    "4,097 bytes": (GOOD + b" " * (4097 - len(GOOD)), 413),
}

BODIES: dict[str, Probe] = {
    f"body: {name}": Probe(partial(order, body=body), of(status))
    for name, (body, status) in REFUSED_BODIES.items()
} | {
    "body: 4,096 bytes": Probe(lambda s: order(s, GOOD + b" " * (4096 - len(GOOD))), of(202)),
    "body: white space around": Probe(lambda s: order(s, b"\r\n\t " + GOOD + b"\n"), of(202)),
    "body: says gzip and is": Probe(
        lambda s: order(s, gzip.compress(GOOD), ("Content-Encoding", "gzip")), of(400)
    ),
    "body: 10 MB": Probe(lambda s: order(s, b" " * 10_000_000), of(413, CLOSED)),
    "body: 10 MB announced": Probe(lambda s: order(s, b"", length="10000000"), of(413)),
    "body: 10 MB in chunks": Probe(
        lambda s: Sent(
            [
                order(s, b"", ("Transfer-Encoding", "chunked"), length=None),
                *[chunked(b" " * 65536, end=b"")] * 150,
            ]
        ),
        of(413, CLOSED),
    ),
    "body: one chunk too large": Probe(
        lambda s: order(s, chunked(b" " * 4097), ("Transfer-Encoding", "chunked"), length=None), of(413)
    ),
    "body: a byte a chunk": Probe(
        lambda s: order(
            s, chunked(*(bytes([b]) for b in GOOD)), ("Transfer-Encoding", "chunked"), length=None
        ),
        of(202),
    ),
    "body: a byte a packet": Probe(lambda s: Sent([bytes([b]) for b in order(s)]), of(202)),
}

"""The one question put to a broker without a client library."""

import struct

from management.embedded.processes import exchange

_API_VERSIONS = 18


def speaks_kafka(port: int) -> bool:
    """Whether a broker serves requests there: it answers ApiVersions v0 (https://kafka.apache.org/protocol)."""
    correlation = 4711
    body = struct.pack(">hhih", _API_VERSIONS, 0, correlation, -1)  # -1: a null client id
    try:
        answer = exchange(port, struct.pack(">i", len(body)) + body, enough=10)
    except OSError:
        return False
    if len(answer) < 10:
        return False
    _, echoed, error = struct.unpack(">iih", answer[:10])
    return bool(echoed == correlation and error == 0)

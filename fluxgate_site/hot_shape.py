"""A client that asks again: the same bytes as before, but for its token and its key.

What httptools has parsed once is not parsed again. The shape of a request is that request with two
values open, and these may hold visible characters alone, so that nothing in them can end a header.
Whatever fits it, httptools would read in the same way; whatever does not fit, it reads.
"""

import re
from typing import Any, NamedTuple

_TOKEN = re.compile(rb"\r\n(?i:authorization): Bearer ([!-~]+)\r\n")
_KEY = re.compile(rb"\r\n(?i:idempotency-key): ([!-~]+)\r\n")
_VALUE = re.compile(rb"[!-~]+")
_END = b"\r\n\r\n"

Fields = dict[bytes, bytes]


class Shape(NamedTuple):
    """Of whole requests of one connection. `names` are the headers of the open values, in their order."""

    before: bytes
    between: bytes
    after: bytes
    names: tuple[bytes, bytes]
    route: Any
    fields: Fields
    body: bytes

    def fields_of(self, data: bytes) -> Fields | None:
        """The headers of a whole request of this shape; None: it is of another one."""
        before, between, after, names = self[:4]
        if not (data.startswith(before) and data.endswith(after)):
            return None
        first, found, second = data[len(before) : -len(after)].partition(between)
        if not (found and _VALUE.fullmatch(first) and _VALUE.fullmatch(second)):
            return None
        fields = self.fields.copy()
        fields[names[0]], fields[names[1]] = first, second
        fields[b"authorization"] = b"Bearer " + fields[b"authorization"]
        return fields


def shape_of(data: bytes, route: Any, fields: Fields, body: bytes) -> Shape | None:
    """The shape of a request that was parsed from just these bytes; None if it has no token and key."""
    head = data[: data.find(_END) + 2]
    token, key = _TOKEN.search(head), _KEY.search(head)
    if token is None or key is None:
        return None
    spans = (*token.span(1), b"authorization"), (*key.span(1), b"idempotency-key")
    (start, end, first), (again, last, second) = sorted(spans)
    return Shape(data[:start], data[end:again], data[last:], (first, second), route, fields, body)

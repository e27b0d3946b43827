"""The id of the request that is being handled, for the lines it leaves in the log.

Nobody pays for it on the way of an order: what is kept is the request's own headers, and they are
looked at when a line is written. Work that requests share is known by the one that began it.
"""

import re
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any
from uuid import uuid4

HEADER = "X-Request-ID"
_NAME = HEADER.lower().encode()
# Anybody may send anything: what goes into a log has no spaces, no control characters, and an end.
_SANE = re.compile(rb"[!-~]{1,128}")

# Headers by lower-case names, of the request under way in this context; None outside of requests.
asking: ContextVar[dict[bytes, bytes] | None] = ContextVar("asking", default=None)


def request_id(fields: dict[bytes, bytes]) -> str:
    """The id that a proxy has given the request, if it is sane; else a new one, the same every time."""
    given = fields.get(_NAME, b"")
    if _SANE.fullmatch(given) is None:
        given = fields[_NAME] = uuid4().hex.encode()
    return given.decode()


def under_way() -> str | None:
    """The id of the request in whose context this is called."""
    fields = asking.get()
    return None if fields is None else request_id(fields)


def add_request_id(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog. An id that the line has been given stays."""
    if "request_id" not in event and (known := under_way()) is not None:
        event["request_id"] = known
    return event

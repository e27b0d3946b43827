"""The refusal that somebody was told a moment ago, for the next who asks for the same.

While a process knows that a sale has nothing for strangers (sales/refusals.py), thousands of requests
differ in nothing but who asks, and with which key. Their answer is the bytes that were written last,
for as long as `server_time` in them is right to the hundredth of a second. What the decision table of
docs/api.md looks at before is looked at here: the identity, the key, an admission, the body. Whoever
is not plainly refused goes the whole way.
"""

import re
import time
from typing import Any, NamedTuple

from orders import metrics
from sales.identity import Identity
from sales.refusals import Refusals
from sales.reply import Reply
from waitingroom import admission

ECHO_SECONDS = 0.01
MOST_SALES = 1024
_KEY = re.compile(rb"[!#-~][!-~]{0,254}")  # spelled bare; quoted ones go the whole way
_ADMISSION = admission.HEADER.lower().encode()
_BEARER = b"Bearer "

Fields = dict[bytes, bytes]


class _Echo(NamedTuple):
    until: float
    refusals: Refusals
    verdict: str
    accept: bytes | None
    body: bytes
    sent: bytes


class Echoes:
    """One process's. `url` is the path of a sale's orders, `fields` are headers by lower-case names."""

    def __init__(self) -> None:
        self._echoes: dict[bytes, _Echo] = {}

    def find(self, state: dict[str, Any], url: bytes, fields: Fields, body: bytes) -> bytes | None:
        """The whole answer, or None: go on."""
        echo, now = self._echoes.get(url), time.monotonic()
        if echo is None or now >= echo.until or body != echo.body:
            return None
        if fields.get(b"accept") != echo.accept or fields.get(b"content-type") != b"application/json":
            return None
        key, bearer = fields.get(b"idempotency-key"), fields.get(b"authorization", b"")
        if key is None or _KEY.fullmatch(key) is None or not bearer.startswith(_BEARER):
            return None
        identity: Identity = state["identity"]
        customer = identity.remembered(bearer[len(_BEARER) :].decode("latin-1"))
        if customer is None or _ADMISSION in fields or not echo.refusals.hold_for(customer, now):
            return None
        metrics.answers.count(echo.verdict)
        return echo.sent

    def note(self, url: bytes, fields: Fields, body: bytes, response: Any, sent: bytes) -> None:
        """What was just answered: kept, if it is a refusal for everybody."""
        if type(response) is not Reply or response.refusals is None:
            return
        if len(self._echoes) >= MOST_SALES:
            self._echoes.clear()
        self._echoes[url] = _Echo(
            time.monotonic() + ECHO_SECONDS,
            response.refusals,
            str(response.refusals.verdict),
            fields.get(b"accept"),
            body,
            sent,
        )

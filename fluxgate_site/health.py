"""What machines ask: alive, ready, and the metrics.

`/livez` touches nothing. `/readyz` asks the gate and the producer and not PostgreSQL: sales go on
while it is down, so a load balancer must not take the web processes out for that. `/metrics`
answers only on the internal port.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from asgiref.typing import HTTPScope
from django.conf import settings
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from orders.log import Acknowledgements
from orders.readings import registry
from sales.gate import GateUnreachable
from sales.turnstile import Turnstile

PATHS = frozenset({"/livez", "/readyz", "/metrics"})


async def answer(scope: HTTPScope, send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["path"] == "/livez":
        status, body, kind = 200, b'{"status":"alive"}', "application/json"
    elif scope["path"] == "/readyz":
        failing = await _failing(scope["state"])
        status = 503 if failing else 200
        body = msgspec.json.encode({"status": "not ready" if failing else "ready", "failing": failing})
        kind = "application/json"
    elif _is_internal(scope):
        status, body, kind = 200, generate_latest(registry()), CONTENT_TYPE_LATEST
    else:
        status, body, kind = 404, b"", "text/plain"
    headers = [(b"content-type", kind.encode()), (b"cache-control", b"no-store")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _failing(state: dict[str, Any]) -> list[str]:
    turnstile: Turnstile = state["turnstile"]
    log: Acknowledgements = state["log"]
    failing = []
    try:
        await turnstile.ping()
    except GateUnreachable:
        failing.append("gate")
    if not log.available():
        failing.append("log")
    return failing


def _is_internal(scope: HTTPScope) -> bool:
    server = scope.get("server")
    return bool(server) and server is not None and server[1] == settings.FLUXGATE.metrics_port

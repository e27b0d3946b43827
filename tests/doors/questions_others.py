"""What else the API is asked: facts, the state of an order, cancelling, documents, wrong addresses."""

from typing import Any

from tests.doors.questions import Asking, Question, an_order, at, by
from tests.site.hostile import Header, Stage, get, order

NOBODYS = "/api/v1/orders/00000000-0000-0000-0000-000000000000"
ORDER = "/api/v1/orders/{order}"
CANCEL = "/api/v1/orders/{order}/cancel"
REGULAR = "a regular in line"
DONE = "the one whose orders are done"  # has rows in the order book, in sales named after their state

_FACTS = {
    "list: of sales": Question(200, "", at("/api/v1/sales")),
    "list: with a question": Question(200, "", at("/api/v1/sales?x=1")),
    "list: of another tag": Question(200, "", at("/api/v1/sales", ("If-None-Match", 'W/"x"'))),
    "list: with a slash": Question(404, "not-found", at("/api/v1/sales/")),
    **{
        f"facts: {sale}": Question(200, "", at("/api/v1/sales/{slug}"), sale=sale)
        for sale in ("open", "future", "unarmed", "armed", "over", "closed", "paused", "room", "sold-out")
    },
    "facts: escaped": Question(200, "", at("/api/v1/sales/%64oors-open")),
    "facts: unknown": Question(404, "sale-not-found", at("/api/v1/sales/unknown")),
    "facts: a draft": Question(404, "sale-not-found", at("/api/v1/sales/{slug}"), sale="draft"),
    "facts: NUL": Question(404, "sale-not-found", at("/api/v1/sales/a%00b")),
    "facts: with a slash": Question(404, "not-found", at("/api/v1/sales/{slug}/")),
    "facts: all names": Question(200, "", at("/api/v1/sales/{slug}", ("Accept", "text/html"))),
}

_STATUS = {
    "order: queued": Question(200, "", at(ORDER), before=(an_order(),)),
    "order: by its tag": Question(304, "", at(ORDER, ("If-None-Match", 'W/"queued"')), before=(an_order(),)),
    "order: by another tag": Question(
        200, "", at(ORDER, ("If-None-Match", 'W/"held"')), before=(an_order(),)
    ),
    **{
        f"order: {state}": Question(200, "", at(ORDER), sale=state, customer=DONE)
        for state in ("confirmed", "refused", "cancelled")
    },
    "order: confirmed, by its tag": Question(
        304, "", at(ORDER, ("If-None-Match", 'W/"confirmed"')), sale="confirmed", customer=DONE
    ),
    "orders: of somebody": Question(200, "", at("/api/v1/orders"), sale="confirmed", customer=DONE),
    "orders: none": Question(200, "", at("/api/v1/orders")),
    "orders: without a token": Question(
        401,
        "unauthorized",
        lambda s: get(s, "/api/v1/orders", last=False).replace(b"Authorization", b"X-Other"),
    ),
    "orders: with a slash": Question(404, "not-found", at("/api/v1/orders/")),
    "order: in capitals": Question(404, "not-found", at("/api/v1/Orders/{order}")),
    "order: of a single number": Question(404, "order-not-found", at("/api/v1/orders/1")),
    "order: nobody's": Question(404, "order-not-found", at(NOBODYS)),
    "order: somebody else's": Question(404, "order-not-found", by("dora", at(ORDER)), before=(an_order(),)),
    "order: a stranger's": Question(
        404, "order-not-found", at(ORDER.replace("{order}", "00000000-0000-0000-0000-000000000000"))
    ),
    "order: without a token": Question(
        401, "unauthorized", lambda s: get(s, NOBODYS, last=False).replace(b"Authorization", b"X-Other")
    ),
    "order: with a slash": Question(404, "not-found", at(ORDER + "/")),
}

_CANCELLING = {
    "cancel: queued": Question(202, "", at(CANCEL, method="POST"), before=(an_order(),)),
    "cancel: again": Question(
        202, "", at(CANCEL, method="POST"), before=(an_order(), at(CANCEL, method="POST"))
    ),
    "cancel: cancelled": Question(200, "", at(CANCEL, method="POST"), sale="cancelled", customer=DONE),
    "cancel: refused": Question(200, "", at(CANCEL, method="POST"), sale="refused", customer=DONE),
    "cancel: nobody's": Question(404, "order-not-found", at(NOBODYS + "/cancel", method="POST")),
    "cancel: somebody else's": Question(
        404, "order-not-found", by("dora", at(CANCEL, method="POST")), before=(an_order(),)
    ),
    "cancel: without a token": Question(
        401,
        "unauthorized",
        lambda s: order(
            s, b"", line=f"POST {NOBODYS}/cancel HTTP/1.1", drop=("Authorization",), length=None, last=False
        ),
    ),
    "cancel: with 4,097 bytes": Question(
        413, "body-too-large", an_order(line=f"POST {NOBODYS}/cancel HTTP/1.1", body=b" " * 4097)
    ),
    "cancel: with a body that nobody reads": Question(
        404, "order-not-found", an_order(line=f"POST {NOBODYS}/cancel HTTP/1.1", body=b"\xff{")
    ),
    "cancel: looked at": Question(405, "method-not-allowed", at(CANCEL)),
}

LINE, TICKETS = "/api/v1/sales/{slug}/line", "POST /api/v1/sales/{slug}/tickets HTTP/1.1"


def a_ticket(body: bytes = b"{}", *headers: Header, **options: Any) -> Asking:
    """Asks for a place in line."""

    def ask(stage: Stage) -> bytes:
        line = TICKETS.replace("{slug}", stage.slug)
        return an_order(*headers, body=body, line=line, **options)(stage)

    return ask


_LINE = {
    "line: of a sale that has one": Question(200, "", at(LINE), sale="room"),
    "line: of a sale without one": Question(200, "", at(LINE)),
    "line: of another tag": Question(200, "", at(LINE, ("If-None-Match", 'W/"x"')), sale="room"),
    "line: before the arming": Question(200, "", at(LINE), sale="unarmed"),
    "line: closed": Question(200, "", at(LINE), sale="closed"),
    "line: unknown": Question(404, "sale-not-found", at("/api/v1/sales/unknown/line")),
    "line: a draft": Question(404, "sale-not-found", at(LINE), sale="draft"),
    "line: NUL": Question(404, "sale-not-found", at("/api/v1/sales/a%00b/line")),
    "line: posted": Question(405, "method-not-allowed", at(LINE, method="POST")),
    "ticket: of a regular": Question(200, "", a_ticket(), sale="room", customer=REGULAR),
    "ticket: again": Question(200, "", a_ticket(), sale="room", customer=REGULAR, before=(a_ticket(),)),
    "ticket: with a forged one": Question(
        200, "", a_ticket(b'{"ticket": "a:b:c"}'), sale="room", customer=REGULAR
    ),
    "ticket: with null": Question(200, "", a_ticket(b'{"ticket": null}'), sale="room", customer=REGULAR),
    "ticket: no line": Question(409, "no-waiting-room", a_ticket()),
    "ticket: unknown sale": Question(404, "sale-not-found", a_ticket(), sale="unknown"),
    "ticket: without a token": Question(401, "unauthorized", a_ticket(drop=("Authorization",)), sale="room"),
    "ticket: of a number": Question(422, "invalid-request", a_ticket(b'{"ticket": 3}'), sale="room"),
    "ticket: with an unknown field": Question(422, "invalid-request", a_ticket(b'{"place": 1}'), sale="room"),
    "ticket: not JSON": Question(400, "malformed-request", a_ticket(b"{"), sale="room"),
    "ticket: without a body": Question(422, "invalid-request", a_ticket(b""), sale="room"),
    "ticket: looked at": Question(405, "method-not-allowed", at("/api/v1/sales/{slug}/tickets"), sale="room"),
    "entries: none frozen": Question(404, "not-found", at("/api/v1/sales/{slug}/entries")),
    "brand": Question(200, "", at("/api/v1/brand")),
    "brand: no logo": Question(404, "not-found", at("/api/v1/brand/logo")),
}

_ELSEWHERE = {
    f"elsewhere: {method} {path[:40]}": Question(status, slug, at(path, method=method))
    for method, path, status, slug in (
        ("GET", "/api/v1/openapi.json", 200, ""),
        ("GET", "/api/v1/docs", 200, ""),
        ("GET", "/api/v1/", 404, "not-found"),
        ("POST", "/api/v1/", 404, "not-found"),
        ("GET", "/api/v1/nothing", 404, "not-found"),
        ("POST", "/api/v1/nothing", 404, "not-found"),
        ("DELETE", "/api/v1/nothing", 404, "not-found"),
        ("HEAD", "/api/v1/nothing", 404, "not-found"),
        ("GET", "/api/", 404, "not-found"),
        ("GET", "/api/v1", 404, "not-found"),
        ("GET", "/api/v2/sales", 404, "not-found"),
        ("GET", "/api/v1//sales", 404, "not-found"),
        ("GET", "/api/../api/v1/sales", 404, "not-found"),
        ("GET", "/api/%2e%2e/admin/", 404, "not-found"),
        ("GET", "/%61pi/v1/sales", 200, ""),
        ("GET", "/api%2Fv1%2Fsales", 200, ""),
        ("GET", "/api/v1/%ff%fe", 404, "not-found"),
        ("GET", "/api/v1/" + "a" * 8000, 404, "not-found"),
        ("GET", "http://elsewhere.example/api/v1/sales", 200, ""),
        *(
            (method, path, 405, "method-not-allowed")
            for path in ("/api/v1/sales", "/api/v1/sales/x", "/api/v1/orders/x")
            for method in ("HEAD", "OPTIONS", "PUT")
        ),
        *((method, "/api/v1/openapi.json", 200, "") for method in ("HEAD", "OPTIONS", "PUT")),
        ("POST", "/api/v1/sales", 405, "method-not-allowed"),
        ("GET", "/livez", 200, ""),
        ("GET", "/readyz", 200, ""),
        ("GET", "/problems", 200, ""),
        ("GET", "/metrics", 404, ""),
    )
}

OTHERS = _FACTS | _STATUS | _CANCELLING | _LINE | _ELSEWHERE

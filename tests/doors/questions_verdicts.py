"""Orders at the gate: admissions and what each sale says (docs/api.md, rows 5 to 16), and their addresses."""

import time

from tests.doors.questions import Question, an_order, by, placed_by
from tests.site.hostile import Stage
from waitingroom.admission import admit

ADMISSION = "Fluxgate-Admission"
KIND = "application/json"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _for(sale: str, customer: str) -> Question:
    def ask(stage: Stage) -> bytes:
        return an_order((ADMISSION, admit(sale, customer, until=9e9)))(stage)

    return Question(403, "admission-invalid", ask)


def _live(stage: Stage) -> bytes:
    return an_order((ADMISSION, admit(stage.slug, stage.customer, until=time.time() + 60)))(stage)


def _run_out(stage: Stage) -> bytes:
    return an_order((ADMISSION, admit(stage.slug, stage.customer, until=time.time() - 5)))(stage)


# Rows 5 to 16: admissions, then what the gate says of each sale.
_VERDICTS = {
    "admission: forged": Question(403, "admission-invalid", an_order((ADMISSION, "forged"))),
    "admission: empty": Question(403, "admission-invalid", an_order((ADMISSION, ""))),
    "admission: of another sale": _for("another", "ann"),
    "admission: of another customer": _for("doors-open", "somebody"),
    "admission: forged, for a sale that is unknown": Question(
        403, "admission-invalid", an_order((ADMISSION, "forged")), sale="unknown"
    ),
    "admission: not asked for": Question(202, "", _live),
    "admission: run out and not asked for": Question(202, "", _run_out),
    "admission: asked for and live": Question(202, "", _live, sale="room"),
    "admission: asked for and run out": Question(403, "admission-required", _run_out, sale="room"),
    "admission: asked for and none": Question(403, "admission-required", an_order(), sale="room"),
    "sale: unknown": Question(404, "sale-not-found", an_order(), sale="unknown"),
    "sale: a draft": Question(404, "sale-not-found", an_order(), sale="draft"),
    "sale: not armed": Question(403, "sale-not-open", an_order(), sale="unarmed", drift=5),
    "sale: in the future": Question(403, "sale-not-open", an_order(), sale="future", drift=5),
    "sale: armed, and open by the clock": Question(403, "sale-not-open", an_order(), sale="armed"),
    "sale: over": Question(410, "sale-closed", an_order(), sale="over"),
    "sale: closed": Question(410, "sale-closed", an_order(), sale="closed"),
    "sale: paused": Question(503, "sale-paused", an_order(), sale="paused", drift=3),
    "sale: busy": Question(429, "too-busy", an_order(), sale="busy", drift=3),
    "sale: busy, for a page": Question(302, "", an_order(("Accept", "text/html")), sale="busy", drift=3),
    "sale: busy, for anybody": Question(302, "", an_order(drop=("Accept",)), sale="busy", drift=3),
    "sale: busy, JSON among others": Question(
        429, "too-busy", an_order(("Accept", f"text/html, {KIND};q=0.1")), sale="busy", drift=3
    ),
    "sale: busy, JSON in capitals": Question(
        429, "too-busy", an_order(("Accept", KIND.upper())), sale="busy", drift=3
    ),
    "sale: busy, in a second Accept": Question(
        429, "too-busy", an_order(("Accept", "text/html"), ("Accept", KIND)), sale="busy", drift=3
    ),
    "sale: all units held": Question(409, "all-units-held", an_order(), sale="held"),
    "sale: sold out": Question(409, "sold-out", an_order(), sale="sold-out"),
    "sale: sold out, again": Question(
        409, "sold-out", an_order(), sale="sold-out", before=(by("bob", an_order()),)
    ),
    "sale: more than the limit": Question(409, "limit-reached", an_order(body=b'{"quantity":31}')),
    "sale: limit reached": Question(
        409, "limit-reached", an_order(key="k-2"), sale="one", before=(an_order(),)
    ),
    "sale: granted": Question(202, "", an_order()),
    "sale: granted five": Question(202, "", an_order(body=b'{"quantity":5}')),
    "key: replayed": Question(202, "", an_order(), before=(an_order(),)),
    "key: replayed quoted": Question(202, "", an_order(key='"k-1"'), before=(an_order(),)),
    "key: replayed where the limit is reached": Question(
        202, "", an_order(), sale="one", before=(an_order(),)
    ),
    "key: replayed with another shape of body": Question(
        202, "", an_order(body=b' {"quantity": 1}'), before=(an_order(),)
    ),
    "key: reused": Question(
        422, "idempotency-key-reused", an_order(body=b'{"quantity":2}'), before=(an_order(),)
    ),
    "key: another customer's": Question(202, "", an_order(), before=(by("carl", an_order()),)),
    "trace: good": Question(202, "", an_order(("traceparent", TRACE))),
    "trace: in capitals": Question(202, "", an_order(("traceparent", TRACE.upper()))),
    "trace: nonsense": Question(202, "", an_order(("traceparent", "00-x-y-01"))),
    "trace: twice": Question(202, "", an_order(("traceparent", TRACE), ("traceparent", TRACE))),
}

# The same order at other spellings of its address.
_ADDRESSES = {
    f"address: {line.replace('{slug}', '')}": Question(status, slug, placed_by(line))
    for line, status, slug in (
        ("POST /api/v1/sales/{slug}/orders?x=1&y HTTP/1.1", 202, ""),
        ("POST /api/v1/sales/{slug}/orders? HTTP/1.1", 202, ""),
        ("POST /api/v1/sales/{slug}/orders?a=%ff HTTP/1.1", 202, ""),
        ("POST /api/v1/sales/{slug}/orders#x HTTP/1.1", 202, ""),
        ("POST http://127.0.0.1/api/v1/sales/{slug}/orders HTTP/1.1", 202, ""),
        ("POST /api/v1/sales/%64oors-open/orders HTTP/1.1", 202, ""),
        ("POST /api/v1/%73ales/{slug}/order%73 HTTP/1.1", 202, ""),
        ("POST /api/v1/sales/{slug}%2Forders HTTP/1.1", 202, ""),
        ("POST /api/v1/sales/{slug}/orders/ HTTP/1.1", 404, "not-found"),
        ("POST /api/v1/sales//{slug}/orders HTTP/1.1", 404, "not-found"),
        ("POST /api/v1/sales//orders HTTP/1.1", 404, "not-found"),
        ("POST /api//v1/sales/{slug}/orders HTTP/1.1", 404, "not-found"),
        ("POST /api/v1/sales/{slug}/../{slug}/orders HTTP/1.1", 404, "not-found"),
        ("POST /api/v1/sales/{slug}/Orders HTTP/1.1", 404, "not-found"),
        ("POST /api/v1/sales/{slug}/orders%00 HTTP/1.1", 404, "not-found"),
        ("POST /api/v1/sales/{slug}%00/orders HTTP/1.1", 404, "sale-not-found"),
        ("POST /api/v1/sales/%ff/orders HTTP/1.1", 404, "sale-not-found"),
        ("POST /api/v1/sales/{slug}%20/orders HTTP/1.1", 404, "sale-not-found"),
        ("POST /api/v1/sales/DOORS-OPEN/orders HTTP/1.1", 404, "sale-not-found"),
        ("POST /api/v2/sales/{slug}/orders HTTP/1.1", 404, "not-found"),
        ("post /api/v1/sales/{slug}/orders HTTP/1.1", 400, ""),
        *(
            (f"{method} /api/v1/sales/{{slug}}/orders HTTP/1.1", 405, "method-not-allowed")
            for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD")
        ),
        ("POST /api/v1/sales/{slug}/orders HTTP/1.0", 202, ""),
    )
}

# Headers that belong to somebody else: a proxy, a browser, an attacker.
_STRANGERS = {
    f"stranger: {name}: {value[:24]}": Question(202, "", an_order((name, value)))
    for name, value in (
        ("Cookie", "csrftoken=bad; sessionid=x"),
        ("Origin", "https://elsewhere.example"),
        ("Referer", "https://elsewhere.example/"),
        ("X-CSRFToken", "x"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Requested-With", "XMLHttpRequest"),
        ("Accept-Encoding", "gzip, br"),
        ("Accept-Language", "el"),
        ("If-None-Match", "*"),
        ("If-Modified-Since", "Sun, 22 Nov 2026 00:00:00 GMT"),
        ("Range", "bytes=0-3"),
        ("Prefer", "respond-async"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Connection", "keep-alive"),
        ("Connection", "close"),
        ("Connection", "X-Other, Close"),
        ("Host", "elsewhere.example"),
    )
} | {"stranger: no Host": Question(202, "", an_order(drop=("Host",)))}

VERDICTS = _VERDICTS | _ADDRESSES | _STRANGERS

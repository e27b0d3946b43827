"""Addresses, methods, headers, admissions and customers that nobody should send."""

from collections.abc import Callable
from functools import partial

from tests.site.hostile import GOOD, Header, Probe, Stage, get, of, order
from waitingroom.admission import admit

_SALE = "/api/v1/sales/"
_PATHS: dict[str, tuple[str | bytes, tuple[int, ...]]] = {
    "NUL": (f"{_SALE}a%00b", (404,)),
    "a raw NUL": (_SALE.encode() + b"a\0b", (400,)),
    "raw bytes": (_SALE.encode() + b"\xff\xfe", (400,)),
    "not UTF-8": (f"{_SALE}%ff%fe", (404,)),
    "overlong": (f"{_SALE}%c0%ae%c0%ae", (404,)),
    "a surrogate": (f"{_SALE}%ed%a0%80", (404,)),
    "half an escape": (f"{_SALE}%4", (404,)),
    "no escape at all": (f"{_SALE}%zz", (404,)),
    "twice escaped": (f"{_SALE}%2500", (404,)),
    "an escaped slash": (f"{_SALE}..%2f..%2f", (404,)),
    "dots": (f"{_SALE}../../../admin/", (404,)),
    "backslashes": (f"{_SALE}..\\..\\x", (404,)),
    "braces": (f"{_SALE}{{}}", (404,)),
    "another hash tag": (f"{_SALE}x}}:{{y", (404,)),
    "the gate's own key": (f"{_SALE}fluxgate:{{x:0}}:gate", (404,)),
    "a format": (f"{_SALE}%25s%25n{{0}}", (404,)),
    "a line break": (f"{_SALE}a%0d%0aX-Injected:%20yes", (404,)),
    "a pattern": (f"{_SALE}*", (404,)),
    "SQL": (f"{_SALE}%27%20OR%201=1--", (404,)),
    "8,000 characters": (_SALE + "a" * 8000, (404,)),
    "60,000 characters": (_SALE + "a" * 60_000, (404,)),
    "a long question": (_SALE.rstrip("/") + "?" + "a=b&" * 5000, (200,)),
    "slashes": ("//api//v1//sales", (404,)),
    "semicolons": ("/api/v1/sales;jsessionid=1", (404,)),
    "the whole address": ("http://elsewhere.example/api/v1/sales", (200,)),
    "an asterisk": ("*", (404,)),
    "emoji": ("/api/v1/sales/%F0%9F%8E%81", (404,)),
    "right to left": ("/api/v1/sales/%E2%80%AEx", (404,)),
    "no order": ("/api/v1/orders/%00", (404,)),
    "braces for an order": ("/api/v1/orders/{}", (404,)),
    "UUID in braces": ("/api/v1/orders/{0a6b895c-4a1a-5b5d-8a35-c14e1373281f}", (404,)),
    "UUID as URN": ("/api/v1/orders/urn:uuid:0a6b895c-4a1a-5b5d-8a35-c14e1373281f", (404,)),
    "UUID of other digits": ("/api/v1/orders/%D9%A0a6b895c4a1a5b5d8a35c14e1373281f", (404,)),
    "a number for an order": ("/api/v1/orders/" + "9" * 400, (404,)),
    "no such file": ("/static/../manage.py", (404,)),
    "no such file, escaped": ("/static/%2e%2e/%2e%2e/etc/passwd", (404,)),
    "NUL in a file": ("/static/%00", (404,)),
    "NUL in a page": ("/problems%00", (404,)),
    "metrics from outside": ("/metrics", (404,)),
    "NUL at the admin": ("/admin/sales/sale/%00/change/", (302,)),
}
_ADDRESSES = {
    f"address: {name}": Probe(partial(get, path=path), of(*statuses))
    for name, (path, statuses) in _PATHS.items()
} | {
    f"order at: {name}": Probe(partial(order, line=f"POST {_SALE}{path}/orders HTTP/1.1"), of(404))
    for name, path in {
        "NUL": "%00", "braces": "{}", "another hash tag": "x}:{y", "not UTF-8": "%ff",
        "emoji": "%F0%9F%8E%81",
        "a surrogate": "%ed%a0%80", "8,000 characters": "a" * 8000, "a pattern": "*",
        "a line break": "%0d%0a",
    }.items()
}  # fmt: skip

_METHODS = {
    f"method: {method} {path}": Probe(partial(get, path=path, method=method), of(status))
    for path in ("/api/v1/sales", "/api/v1/sales/x/orders", "/api/v1/orders/x")
    for method, status in {
        "HEAD": 405, "OPTIONS": 405, "TRACE": 405, "PUT": 405, "DELETE": 405, "PATCH": 405, "PROPFIND": 405,
        "FOO": 400, "get": 400, "GET\0": 400,
    }.items()
}  # fmt: skip

_HEADERS: dict[str, tuple[list[Header], tuple[str, ...], tuple[int, ...]]] = {
    "no Host": ([], ("Host",), (202,)),
    "a foreign Host": ([("Host", "elsewhere.example")], ("Host",), (202,)),
    "two Hosts": ([("Host", "elsewhere.example")], (), (202,)),
    "no key": ([], ("Idempotency-Key",), (400,)),
    "two keys": ([("Idempotency-Key", "k-2")], (), (400,)),
    "one key twice": ([("Idempotency-Key", "k"), ("Idempotency-Key", "k")], ("Idempotency-Key",), (400,)),
    "a key with underscores": ([("Idempotency_Key", "k")], ("Idempotency-Key",), (400,)),
    "an empty key": ([("Idempotency-Key", "")], ("Idempotency-Key",), (400,)),
    "NUL in the key": ([("Idempotency-Key", b"a\0b")], ("Idempotency-Key",), (400,)),
    "a line break in the key": ([("Idempotency-Key", b"a\r b")], ("Idempotency-Key",), (400,)),
    "bytes in the key": ([("Idempotency-Key", b"\xff\xfe")], ("Idempotency-Key",), (400,)),
    "a long key": ([("Idempotency-Key", "k" * 256)], ("Idempotency-Key",), (400,)),
    "a huge key": ([("Idempotency-Key", "k" * 60_000)], ("Idempotency-Key",), (400,)),
    "braces in the key": ([("Idempotency-Key", "x}:{y")], ("Idempotency-Key",), (202,)),
    "the gate's separator in the key": ([("Idempotency-Key", ":::0:")], ("Idempotency-Key",), (202,)),
    "two tokens": ([("Authorization", "Bearer x")], (), (401,)),
    "no token": ([], ("Authorization",), (401,)),
    "a huge token": ([("Authorization", "Bearer " + "x" * 60_000)], ("Authorization",), (401,)),
    "bytes for a token": ([("Authorization", b"Bearer \xff\xfe")], ("Authorization",), (401,)),
    "a folded header": ([("X-Folded", "a\r\n b")], (), (400,)),
    "no name": ([("", "x")], (), (400,)),
    "a name with a space": ([("X Y", "x")], (), (400,)),
    "NUL in a header": ([("X-Any", b"a\0b")], (), (400,)),
    "2,000 headers": ([(f"X-{i}", "x") for i in range(2000)], (), (202,)),
    "a huge header": ([("X-Any", "x" * 100_000)], (), (202,)),
    "two types": ([("Content-Type", "text/plain")], (), (415,)),
    "no type": ([], ("Content-Type",), (415,)),
    "a type of its own": ([("Content-Type", "application/json; charset=utf-16")], ("Content-Type",), (202,)),
    "an unknown charset": ([("Content-Type", "application/json; charset=x\0")], ("Content-Type",), (400,)),
    "a long Accept": ([("Accept", "a/b;q=0.1," * 5000)], (), (202,)),
    "an absurd Accept": ([("Accept", "*/*;q=nan, ;;;=, \xff/\xff;q=1e999")], ("Accept",), (202,)),
    "a trace of its own": ([("traceparent", "00-" + "g" * 32)], (), (202,)),
    "a method over a method": ([("X-HTTP-Method-Override", "DELETE")], (), (202,)),
    "another address": ([("X-Original-URL", "/admin/"), ("X-Forwarded-Host", "x")], (), (202,)),
    "cookies without end": ([("Cookie", "a=b; " * 5000)], (), (202,)),
    "a forged admission": ([("Fluxgate-Admission", "forged")], (), (403,)),
    "an empty admission": ([("Fluxgate-Admission", "")], (), (403,)),
    "a huge admission": ([("Fluxgate-Admission", "x:" * 30_000)], (), (403,)),
    "bytes for an admission": ([("Fluxgate-Admission", b"\xff:\xff:\xff")], (), (403,)),
}  # fmt: skip


def _admission(make: Callable[[Stage], str]) -> Probe:
    return Probe(lambda stage: order(stage, GOOD, ("Fluxgate-Admission", make(stage))), of(403))


_ADMISSIONS = {
    "admission: of another sale": _admission(lambda s: admit("other", s.customer, until=9e9)),
    "admission: of another customer": _admission(lambda s: admit(s.slug, "somebody", until=9e9)),
    "admission: changed": _admission(lambda s: "x" + admit(s.slug, s.customer, until=9e9)),
    "admission: cut": _admission(lambda s: admit(s.slug, s.customer, until=9e9)[:-1]),
    "admission: two": Probe(
        lambda s: order(s, GOOD, *[("Fluxgate-Admission", admit(s.slug, s.customer, until=9e9))] * 2), of(403)
    ),
}

CUSTOMERS = [
    "x}:{y",
    "{}",
    "a:b:c",
    ":",
    "1:1",
    "*",
    "'; DROP TABLE",
    "Ω≈ç√",
    "🎁" * 100,
    "x" * 255,
    "%s%n",
    "\\u0000",
]


def _with(added: list[Header], drop: tuple[str, ...]) -> Callable[[Stage], bytes]:
    return lambda stage: order(stage, GOOD, *added, drop=drop)


def _by(customer: str) -> Callable[[Stage], bytes]:
    return lambda stage: order(stage._replace(customer=customer))


REQUESTS: dict[str, Probe] = {
    **_ADDRESSES,
    **_METHODS,
    **{
        f"header: {name}": Probe(_with(added, drop), of(*statuses))
        for name, (added, drop, statuses) in _HEADERS.items()
    },
    **_ADMISSIONS,
    **{
        f"customer: {name[:20]!a}": Probe(_by(name), of(202))
        for name in CUSTOMERS
    },
}  # fmt: skip

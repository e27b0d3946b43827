"""Orders up to the gate: who buys, the key, the type and shape of the body (docs/api.md, rows 1 to 4)."""

import time
from collections.abc import Callable

import jwt
from django.conf import settings

from tests.doors.questions import KEY, Question, an_order, bearer, own
from tests.orders.test_decision_table import BAD_TOKENS
from tests.site.hostile import GOOD, Stage, chunked
from tests.site.hostile_bodies import REFUSED_BODIES


def _without_kid(stage: Stage) -> str:
    fluxgate = settings.FLUXGATE
    claims = {"sub": stage.customer, "iss": fluxgate.token_issuer, "aud": fluxgate.token_audience}
    return jwt.encode(claims | {"exp": int(time.time()) + 60}, fluxgate.token_keys["development"])


def _unknown_kid(stage: Stage) -> str:
    return jwt.encode({"sub": stage.customer}, "k" * 40, headers={"kid": "another"})


def _made_by(make: Callable[[], str]) -> Callable[[Stage], str]:
    return lambda stage: make()


# Row 1: who buys.
_IDENTITY = {
    **{
        f"token: {name}": Question(
            401,
            "unauthorized",
            an_order(("Authorization", made)) if isinstance(made, str) else bearer(_made_by(made)),
        )
        for name, made in BAD_TOKENS.items()
    },
    "token: no header": Question(401, "unauthorized", an_order(drop=("Authorization",))),
    "token: without a kid": Question(202, "", bearer(_without_kid)),
    "token: with a kid that is unknown": Question(401, "unauthorized", bearer(_unknown_kid)),
    "token: bearer in small letters": Question(202, "", bearer(own, "bearer")),
    "token: BEARER in capitals": Question(202, "", bearer(own, "BEARER")),
    "token: two spaces": Question(202, "", bearer(own, "Bearer ")),
    "token: a tab": Question(401, "unauthorized", bearer(own, "Bearer\t")),
    "token: no scheme": Question(401, "unauthorized", bearer(own, "")),
    "token: another scheme": Question(401, "unauthorized", bearer(own, "Token")),
    "token: nothing behind the scheme": Question(401, "unauthorized", an_order(("Authorization", "Bearer "))),
    "token: the header twice": Question(
        401, "unauthorized", an_order(("Authorization", "Bearer x"), ("Authorization", "Bearer y"))
    ),
    "token: before everything else": Question(
        401,
        "unauthorized",
        an_order(("Content-Type", "a/b"), body=b"{", drop=("Authorization", "Idempotency-Key")),
    ),
    "token: a customer in Greek": Question(202, "", an_order(), before=(an_order(),), customer="Ω≈ç√"),
    "token: a customer of 255": Question(202, "", an_order(), before=(an_order(),), customer="x" * 255),
    "token: a customer that looks like a header": Question(
        202, "", an_order(), before=(an_order(),), customer="a: b, c"
    ),
}

# Row 2: the key.
_KEYS = {
    "key: none": Question(400, "idempotency-key-missing", an_order(drop=("Idempotency-Key",))),
    **{
        f"key: {key[:12]!a} of {len(key)}": Question(400, "idempotency-key-invalid", an_order(key=key))
        for key in (
            "with space",
            "a\tb",
            "k" * 256,
            '"open',
            '"in"ner"',
            r'"\x"',
            '"end\\"',
            '""',
            '"' + "k" * 256 + '"',
        )
    },
    "key: empty": Question(
        400, "idempotency-key-invalid", an_order(("Idempotency-Key", ""), drop=("Idempotency-Key",))
    ),
    "key: bytes": Question(400, "idempotency-key-invalid", an_order(key=b"caf\xe9")),
    "key: two headers": Question(400, "idempotency-key-invalid", an_order(("Idempotency-Key", "k-2"))),
    "key: the same twice": Question(400, "idempotency-key-invalid", an_order(("idempotency-key", KEY))),
    "key: before the body": Question(
        400, "idempotency-key-missing", an_order(body=b"{", drop=("Idempotency-Key",))
    ),
    "key: bare": Question(202, "", an_order(key="k-1")),
    "key: quoted": Question(202, "", an_order(key='"k-1"')),
    "key: with white space around": Question(202, "", an_order(key="  k-1 \t")),
    "key: 255 characters": Question(202, "", an_order(key="k" * 255), key="k" * 255),
    "key: 255 quoted": Question(202, "", an_order(key='"' + "k" * 255 + '"'), key="k" * 255),
    "key: with escapes": Question(202, "", an_order(key='"a\\\\b\\"c"'), key='a\\b"c'),
    "key: every character": Question(
        202, "", an_order(key="".join(map(chr, range(0x23, 0x7F)))), key="".join(map(chr, range(0x23, 0x7F)))
    ),
    "key: a comma": Question(202, "", an_order(key="a,b"), key="a,b"),
    "key: its name in capitals": Question(
        202, "", an_order(("IDEMPOTENCY-KEY", KEY), drop=("Idempotency-Key",))
    ),
    "key: its name with underscores": Question(
        400, "idempotency-key-missing", an_order(("Idempotency_Key", KEY), drop=("Idempotency-Key",))
    ),
}

# Row 4: the type of the body, and the body.
_TYPES = {
    f"type: {kind}": Question(status, slug, an_order(("Content-Type", kind)))
    for kind, status, slug in (
        ("application/json; charset=utf-8", 202, ""),
        ("application/json;charset=UTF-8", 202, ""),
        ("application/json; charset=latin-1", 202, ""),
        ("application/json; charset=no-such", 202, ""),
        ('application/json; v="1;2"', 202, ""),
        ("application/json ;x", 202, ""),
        ("application/json;", 202, ""),
        ("Application/JSON", 202, ""),
        ("application/jsonx", 415, "unsupported-media-type"),
        ("application/json, text/plain", 415, "unsupported-media-type"),
        ("application/problem+json", 415, "unsupported-media-type"),
        ("application/x-www-form-urlencoded", 415, "unsupported-media-type"),
        ("multipart/form-data; boundary=x", 415, "unsupported-media-type"),
        ("text/plain", 415, "unsupported-media-type"),
        ("*/*", 415, "unsupported-media-type"),
        ("", 415, "unsupported-media-type"),
    )
} | {
    "type: none": Question(415, "unsupported-media-type", an_order(drop=("Content-Type",))),
    "type: before the body": Question(
        415, "unsupported-media-type", an_order(("Content-Type", "text/plain"), body=b"{")
    ),
}
_REFUSED = {400: "malformed-request", 413: "body-too-large", 422: "invalid-request"}
_BODIES = {
    f"body: {name}": Question(status, _REFUSED[status], an_order(body=body))
    for name, (body, status) in REFUSED_BODIES.items()
} | {
    "body: no length": Question(422, "invalid-request", an_order(body=b"", length=None)),
    "body: 4,096 bytes": Question(202, "", an_order(body=GOOD + b" " * (4096 - len(GOOD)))),
    "body: white space": Question(202, "", an_order(body=b'\r\n\t { "quantity" :\n1 }\n')),
    "body: an escaped name": Question(202, "", an_order(body=b'{"qu\\u0061ntity":1}')),
    "body: two fields too many": Question(
        422, "invalid-request", an_order(body=b'{"a":1,"b":[{}],"c":{"d":null}}')
    ),
    "body: an empty name": Question(422, "invalid-request", an_order(body=b'{"":1}')),
    "body: text": Question(422, "invalid-request", an_order(body=b'"quantity"')),
    "body: null": Question(422, "invalid-request", an_order(body=b"null")),
    "body: a million": Question(409, "limit-reached", an_order(body=b'{"quantity":1000000}')),
    "body: a million and one": Question(422, "invalid-request", an_order(body=b'{"quantity":1000001}')),
    "body: in chunks": Question(
        202, "", an_order(("Transfer-Encoding", "chunked"), body=chunked(GOOD[:5], GOOD[5:]), length=None)
    ),
    "body: 4,097 bytes in chunks": Question(
        413,
        "body-too-large",
        an_order(("Transfer-Encoding", "chunked"), body=chunked(b" " * 4097), length=None),
    ),
    "body: asked to go on": Question(202, "", an_order(("Expect", "100-continue"))),
}


ORDERS = _IDENTITY | _KEYS | _TYPES | _BODIES

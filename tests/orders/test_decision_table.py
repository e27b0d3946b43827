"""The decision table of docs/api.md, row by row and in its order, over HTTP against a running site."""

import json
import time
from typing import Any
from uuid import uuid4

import jwt
import pytest
import requests
from django.conf import settings

from sales import arming
from sales.gate import connect
from sales.identity import mint
from sales.models import Sale
from sales.problems import BY_SLUG
from tests.running_site import Site
from waitingroom.admission import admit


def refused(answer: requests.Response, slug: str) -> dict[str, Any]:
    """Asserts that the answer is this problem, whole and well-formed; returns its body."""
    kind = BY_SLUG[slug]
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["type"]) == (kind.status, f"/problems#{slug}"), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (body["status"], body["title"]) == (kind.status, kind.title)
    assert body["detail"]
    return body


def forged(**changed: Any) -> str:
    """A token that is right but for what is changed; None leaves a claim out."""
    key = changed.pop("key", settings.FLUXGATE.token_keys["development"])
    algorithm = changed.pop("algorithm", "HS256")
    claims = {"sub": "ann", "iss": settings.FLUXGATE.token_issuer, "aud": settings.FLUXGATE.token_audience}
    claims |= {"exp": int(time.time()) + 60} | changed
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": "development"})


BAD_TOKENS = {
    "none at all": "",
    "not bearer": "Basic YW5uOmFubg==",
    "not a token": "Bearer x.y.z",
    "expired": lambda: forged(exp=int(time.time()) - 5),
    "without expiry": lambda: forged(exp=None),
    "foreign issuer": lambda: forged(iss="https://elsewhere.example"),
    "foreign audience": lambda: forged(aud="another-service"),
    "foreign key": lambda: forged(key="k" * 40),
    "alg none": lambda: forged(key=None, algorithm="none"),
    "another algorithm": lambda: forged(algorithm="HS512"),
    "without subject": lambda: forged(sub=None),
    "subject with a control character": lambda: forged(sub="ann\0"),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
def test_row_1_identity(site: Site, kind: str) -> None:
    token = BAD_TOKENS[kind]
    header = token if isinstance(token, str) else f"Bearer {token()}"
    answer = site.buy("any-sale", "ann", Authorization=header)
    refused(answer, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_row_1_comes_before_everything_else(site: Site) -> None:
    answer = requests.post(f"{site.url}/api/v1/sales/nope/orders", data="{", timeout=10)
    refused(answer, "unauthorized")


@pytest.mark.parametrize("key", ["", "with space", "k" * 256, '"open', '"in"ner"', r'"\x"', "caf\u00e9"])
def test_row_2_key_invalid(site: Site, key: str) -> None:
    answer = requests.post(
        f"{site.url}/api/v1/sales/nope/orders",
        data="{",
        headers={"Authorization": f"Bearer {mint('ann')}", "Idempotency-Key": key.encode("latin-1")},
        timeout=10,
    )
    refused(answer, "idempotency-key-invalid")


def test_row_2_key_missing(site: Site) -> None:
    answer = requests.post(
        f"{site.url}/api/v1/sales/nope/orders",
        data="{",
        headers={"Authorization": f"Bearer {mint('ann')}"},
        timeout=10,
    )
    refused(answer, "idempotency-key-missing")


@pytest.mark.parametrize(
    ("bare", "quoted"), [("k-1", '"k-1"'), ("a\\b", '"a\\\\b"'), ("k" * 255, f'"{"k" * 255}"')]
)
def test_row_2_bare_and_quoted_keys_are_the_same(site: Site, bare: str, quoted: str) -> None:
    sale = site.sell()
    first, second = site.buy(sale.slug, "ann", bare), site.buy(sale.slug, "ann", quoted)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()


BAD_QUANTITIES: list[Any] = [True, "3", 3.0, 0, -1, None, [1], {"n": 1}, 10**20, 1_000_001]


@pytest.mark.parametrize("quantity", BAD_QUANTITIES, ids=repr)
def test_the_shape_of_the_body(site: Site, quantity: Any) -> None:
    body = refused(site.buy("any-sale", "ann", quantity=quantity), "invalid-request")
    assert body["errors"][0]["field"] == "quantity"


def post(site: Site, data: bytes, **headers: str) -> requests.Response:
    return requests.post(
        f"{site.url}/api/v1/sales/any-sale/orders",
        data=data,
        headers={
            "Authorization": f"Bearer {mint('ann')}",
            "Idempotency-Key": "k",
            "Content-Type": "application/json",
        }
        | headers,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (b"", "invalid-request"),
        (b"{}", "invalid-request"),
        (b"[]", "invalid-request"),
        (b"1", "invalid-request"),
        (b'{"quantity":1,"unit_price":0}', "invalid-request"),
        (b'{"quantity":NaN}', "malformed-request"),
        (b'{"\\ud800":1,"quantity":1}', "invalid-request"),
        (b'{"quantity":', "malformed-request"),
        (b"\xff\xfe", "malformed-request"),
        (b"\0", "malformed-request"),
        (b"[" * 4000, "malformed-request"),
        (b" " * 4097, "body-too-large"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_bad_bodies(site: Site, data: bytes, slug: str) -> None:
    refused(post(site, data), slug)


def test_a_body_that_is_not_json(site: Site) -> None:
    refused(post(site, b'{"quantity":1}', **{"Content-Type": "text/plain"}), "unsupported-media-type")


def test_row_3_forged_admission(site: Site) -> None:
    sale = site.sell()
    for wrong in (
        "forged",
        admit("another-sale", "ann", until=time.time() + 60),
        admit(sale.slug, "bob", until=9e9),
    ):
        refused(site.buy(sale.slug, "ann", **{"Fluxgate-Admission": wrong}), "admission-invalid")


def test_row_4_fence_tripped(site: Site) -> None:
    sale = site.sell()
    with connect() as gate:
        gate.script_flush()
    answer = site.buy(sale.slug, "ann")
    refused(answer, "temporarily-unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


def test_unknown_sale(site: Site) -> None:
    site.sell()
    refused(site.buy("no-such-sale", "ann"), "sale-not-found")


def test_rows_5_and_6_known_keys(site: Site) -> None:
    sale = site.sell(limit=2)
    first = site.buy(sale.slug, "ann", "key")
    assert first.status_code == 202
    again = site.buy(sale.slug, "ann", "key")
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Location"] == first.headers["Location"] == first.json()["status_url"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    refused(site.buy(sale.slug, "ann", "key", quantity=2), "idempotency-key-reused")
    assert site.buy(sale.slug, "bob", "key").json()["order_id"] != first.json()["order_id"]


def test_row_6_after_closing_the_original_answer_stands(site: Site) -> None:
    sale = site.sell()
    first = site.buy(sale.slug, "ann", "key")
    arming.close(sale, actor="test")
    again = site.buy(sale.slug, "ann", "key")
    assert (again.status_code, again.json()) == (202, first.json())
    refused(site.buy(sale.slug, "bob"), "sale-closed")


def test_row_7_before_the_window(site: Site) -> None:
    sale = site.sell(opens_in=100)
    answer = site.buy(sale.slug, "ann")
    body = refused(answer, "sale-not-open")
    assert body["opens_at"].startswith(f"{sale.opens_at:%Y-%m-%dT%H:%M:%S}")
    assert 90 <= int(answer.headers["Retry-After"]) <= 100


def test_row_7_scheduled_but_not_armed(site: Site) -> None:
    armed = site.sell(opens_in=100)
    later = Sale.objects.get(pk=armed.pk)
    later.pk, later.slug, later.state, later.armed_at, later.epoch = (
        uuid4(),
        f"{armed.slug}-2",
        "draft",
        None,
        0,
    )
    later.save(force_insert=True)
    refused(site.buy(later.slug, "ann"), "sale-not-found")  # a draft is nobody's business
    arming.schedule(later, actor="test")
    refused(site.buy(later.slug, "ann"), "sale-not-open")


def test_row_7_after_the_window(site: Site) -> None:
    sale = site.sell(closes_in=0.5)
    time.sleep(0.6)
    refused(site.buy(sale.slug, "ann"), "sale-closed")


def test_row_7_paused(site: Site) -> None:
    sale = site.sell()
    arming.pause(sale, actor="test")
    answer = site.buy(sale.slug, "ann")
    refused(answer, "sale-paused")
    assert int(answer.headers["Retry-After"]) >= 1


def test_row_8_admission_required(site: Site) -> None:
    sale = site.sell(admission_required=True)
    body = refused(site.buy(sale.slug, "ann"), "admission-required")
    assert body["room_url"].endswith(f"?sale={sale.slug}")
    run_out = admit(sale.slug, "ann", until=time.time() - 1)
    refused(site.buy(sale.slug, "ann", **{"Fluxgate-Admission": run_out}), "admission-required")
    live = admit(sale.slug, "ann", until=time.time() + 60)
    assert site.buy(sale.slug, "ann", **{"Fluxgate-Admission": live}).status_code == 202


def test_row_9_busy(site: Site) -> None:
    sale = site.sell(admission_rate=1, burst=1)
    assert site.buy(sale.slug, "first").status_code == 202
    answer = site.buy(sale.slug, "ann")
    body = refused(answer, "too-busy")
    assert body["room_url"].endswith(f"?sale={sale.slug}")
    assert 1 <= int(answer.headers["Retry-After"]) <= 12
    page = site.buy(sale.slug, "ann", Accept="text/html")
    assert (page.status_code, page.headers["Location"]) == (302, body["room_url"])
    assert int(page.headers["Retry-After"]) >= 1
    assert site.get(page.headers["Location"]).status_code == 200


def test_row_10_limit(site: Site) -> None:
    sale = site.sell()
    first = site.buy(sale.slug, "ann")
    body = refused(site.buy(sale.slug, "ann"), "limit-reached")
    assert body["order_url"] == first.json()["status_url"]


def test_rows_11_and_12_no_unit_left(site: Site) -> None:
    sale = site.sell(allotment=1)
    first = site.buy(sale.slug, "first")
    with connect() as gate:
        key = f"fluxgate:{{{sale.id}:0}}:gate"
        gate.hset(key, mapping={"held": 1, "queued": 0})  # its acknowledgement is late
        answer = site.buy(sale.slug, "ann")
        refused(answer, "all-units-held")
        assert int(answer.headers["Retry-After"]) >= 1
        gate.hset(key, mapping={"held": 0, "queued": 1})
    time.sleep(2 * settings.FLUXGATE.repeat_ms / 1000)  # each process may repeat so long that it is held
    refused(site.buy(sale.slug, "ann"), "sold-out")
    assert first.status_code == 202


def test_row_13_claimed(site: Site) -> None:
    sale = site.sell(limit=2)
    answer = site.buy(sale.slug, "ann", quantity=2)
    body = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/v1/orders/{body['order_id']}"
    assert {name: body[name] for name in ("state", "sale", "quantity", "status_url")} == {
        "state": "queued",
        "sale": sale.slug,
        "quantity": 2,
        "status_url": answer.headers["Location"],
    }
    assert body["server_time"].endswith("Z")


def test_a_method_or_address_that_does_not_exist(site: Site) -> None:
    answer = requests.put(f"{site.url}/api/v1/sales/x/orders", timeout=10)
    refused(answer, "method-not-allowed")
    assert answer.headers["Allow"] == "POST"
    refused(site.get("/api/v1/nothing"), "not-found")
    refused(site.get("/api/v2/sales"), "not-found")


def test_problem_types_are_documented_where_they_point(site: Site) -> None:
    page = site.get("/problems").text
    for slug in BY_SLUG:
        assert f'id="{slug}"' in page


def test_every_refusal_is_json_that_python_reads(site: Site) -> None:
    assert json.loads(site.buy("no-such", "ann").content)["status"] == 404

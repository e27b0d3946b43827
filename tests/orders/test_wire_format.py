"""The wire format of version 1: pinned byte for byte, and strict about everything else.

A golden file changes only together with a new version: records of the old one are in the log.
"""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha1
from pathlib import Path
from typing import Any
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from orders import claims

GOLDEN = Path(__file__).parent / "golden"
CLAIM = claims.Claim(
    v=1,
    order_id=UUID("5b0a3c1e-6c7f-5d64-9d3b-0c1f2a3b4c5d"),
    sale_id=UUID("0f9d8c7b-6a59-4483-8271-60f1e2d3c4b5"),
    product_id=42,
    user_id='Zoë "Z" 買い手',
    quantity=2,
    unit_price=Decimal("19.90"),
    currency="EUR",
    pool=0,
    epoch=1760000000001,
    claimed_at=datetime(2026, 11, 27, 18, 0, 0, 123000, tzinfo=UTC),
)
CANCEL = claims.Cancel(
    v=1, claim=CLAIM, reason="buyer", cancelled_at=datetime(2026, 11, 27, 18, 5, 0, 456000, tzinfo=UTC)
)
BARRIER = claims.Barrier(
    v=1,
    sale_id=CLAIM.sale_id,
    pool=0,
    epoch=1760000000002,
    at=datetime(2026, 11, 27, 18, 6, 0, 789000, tzinfo=UTC),
)
MESSAGES = {"claim.v1": CLAIM, "cancel.v1": CANCEL, "barrier.v1": BARRIER}
OUR_TIME = datetime(2000, 1, 1), datetime(9998, 1, 1)  # noqa: DTZ001  # hypothesis wants them so
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def golden(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return loaded


@pytest.mark.parametrize("name", MESSAGES)
def test_a_record_is_what_it_always_was(name: str) -> None:
    expected = golden(name)
    record = claims.encode(MESSAGES[name], 7, TRACEPARENT)
    assert record.partition == 7
    assert record.key.decode() == expected["key"]
    assert record.value.decode() == expected["value"]
    assert {name: value.decode() for name, value in record.headers} == expected["headers"]


@pytest.mark.parametrize("name", MESSAGES)
def test_a_record_of_before_is_read(name: str) -> None:
    assert claims.decode(golden(name)["value"].encode()) == MESSAGES[name]


def test_a_record_without_a_trace_has_no_traceparent() -> None:
    assert "traceparent" not in dict(claims.encode(CLAIM, 0).headers)


@given(
    order_id=st.uuids(),
    customer=st.text(min_size=1, max_size=255).filter(str.isprintable),
    quantity=st.integers(1, 2**31 - 1),
    claimed_at=st.datetimes(*OUR_TIME, timezones=st.just(UTC)),
    traceparent=st.sampled_from([None, TRACEPARENT]),
    currency=st.sampled_from(["EUR", "100%", '"%d']),
)
def test_a_form_makes_the_record_that_encoding_the_claim_makes(
    order_id: UUID, customer: str, quantity: int, claimed_at: datetime, traceparent: str | None, currency: str
) -> None:
    shared = replace(CLAIM, currency=currency)
    claim = replace(shared, order_id=order_id, user_id=customer, quantity=quantity, claimed_at=claimed_at)
    made = claims.ClaimForm(shared, 3).record(str(order_id), customer, quantity, claimed_at, traceparent)
    encoded = claims.encode(claim, 3, traceparent)
    assert made._replace(headers=[]) == encoded._replace(headers=[])
    assert dict(made.headers) == dict(encoded.headers)
    assert claims.decode(made.value) == claim


def changed(**fields: Any) -> bytes:
    """The golden claim with some fields changed; None takes one out."""
    value = json.loads(golden("claim.v1")["value"]) | fields
    return json.dumps({name: item for name, item in value.items() if item is not None}).encode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"not json",
        b"[]",
        b"null",
        b"\xff\xfe",
        golden("claim.v1")["value"].encode()[:-1],
        golden("claim.v1")["value"].encode() + b"x",
        b'{"v":1}',
        changed(type="refund"),
        changed(type=None),
        changed(v=None),
        changed(v="1"),
        changed(surprise=1),
        changed(order_id="no uuid"),
        changed(order_id=None),
        changed(user_id=""),
        changed(user_id="x" * 256),
        changed(user_id=7),
        changed(quantity=0),
        changed(quantity=-1),
        changed(quantity=1.5),
        changed(quantity="2"),
        changed(quantity=2**31),
        changed(unit_price="cheap"),
        changed(claimed_at="2026-11-27T18:00:00"),  # no zone: on whose clock?
        changed(claimed_at="yesterday"),
        json.dumps({**json.loads(golden("cancel.v1")["value"]), "reason": "whim"}).encode(),
    ],
)
def test_anything_else_is_a_bad_record(value: bytes | None) -> None:
    with pytest.raises(claims.BadRecord) as caught:
        claims.decode(value)
    assert str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_says_so(version: int) -> None:
    with pytest.raises(claims.UnknownVersion, match=f"version {version}, this release reads version 1"):
        claims.decode(changed(v=version, new_field_of_a_newer_release=True))


@given(sale=st.uuids(), customer=st.text(min_size=1, max_size=255), key=st.text(min_size=1, max_size=255))
def test_an_order_id_is_a_uuid_of_version_5(sale: UUID, customer: str, key: str) -> None:
    name = f"{len(customer)}:{customer}:{key}".encode()
    made = claims.order_id(sale, customer, key)
    assert made == str(UUID(bytes=sha1(sale.bytes + name).digest()[:16], version=5))
    assert (UUID(made).version, UUID(made).variant) == (5, RFC_4122)


def test_the_order_id_is_the_same_after_any_loss() -> None:
    sale = CLAIM.sale_id
    assert claims.order_id(sale, "alice", "key-1") == "280a31e4-7d5d-5179-a7cf-e024e5a6d103"
    assert claims.order_id(sale, "alice", "key-1") == claims.order_id(sale, "alice", "key-1")
    others = {
        claims.order_id(sale, "alice", "key-2"),
        claims.order_id(sale, "bob", "key-1"),
        claims.order_id(UUID(int=1), "alice", "key-1"),
        claims.order_id(sale, "a", "b:c"),
        claims.order_id(sale, "a:b", "c"),
        claims.order_id(sale, "alice", "key-1"),
    }
    assert len(others) == 6


def test_times_are_written_in_utc() -> None:
    elsewhere = CLAIM.claimed_at.astimezone(timezone(timedelta(hours=9)))
    assert claims.decode(changed(claimed_at=elsewhere.isoformat())).claimed_at == CLAIM.claimed_at  # type: ignore[union-attr]


@pytest.mark.parametrize("price", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_price_that_is_no_number_is_poison(price: str) -> None:
    """Decimal reads these words, and comparing "sNaN" raises: it must not get past the decoder."""
    value = claims.encode(CLAIM, 0).value.replace(b'"19.90"', f'"{price}"'.encode())
    assert price.encode() in value
    with pytest.raises(claims.BadRecord):
        claims.decode(value)

"""Tokens, keys and ids: who asks, and which order is meant."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from orders import idempotency
from orders.api import _traceparent
from orders.claims import order_id
from sales.identity import Identity, InvalidToken, mint
from waitingroom import admission, shedding

VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255)


def configure(settings: Any, **changed: Any) -> None:
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update=changed)


def test_a_token_names_its_customer() -> None:
    assert Identity().customer(mint("ann@example.com")) == "ann@example.com"


def test_a_remembered_token_expires_all_the_same() -> None:
    identity, token = Identity(), mint("ann", lifetime=timedelta(minutes=5))
    assert identity.customer(token) == "ann"
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=6)), pytest.raises(InvalidToken):
        identity.customer(token)


def test_keys_rotate_by_kid(settings: Any) -> None:
    old, new = "o" * 32, "n" * 32
    configure(settings, token_keys={"old": old})
    from_old = mint("ann")
    configure(settings, token_keys={"new": new, "old": old})
    assert Identity().customer(from_old) == "ann"
    assert Identity().customer(mint("bob")) == "bob"
    configure(settings, token_keys={"new": new})
    with pytest.raises(InvalidToken):
        Identity().customer(from_old)


def test_without_a_kid_only_a_single_key_is_meant(settings: Any) -> None:
    fluxgate = settings.FLUXGATE
    key = "k" * 32
    claims = {
        "sub": "ann",
        "iss": fluxgate.token_issuer,
        "aud": fluxgate.token_audience,
        "exp": datetime.now(UTC) + timedelta(minutes=1),
    }
    token = jwt.encode(claims, key, algorithm="HS256")
    configure(settings, token_keys={"only": key})
    assert Identity().customer(token) == "ann"
    configure(settings, token_keys={"only": key, "second": "s" * 32})
    with pytest.raises(InvalidToken):
        Identity().customer(token)


def test_a_public_key_cannot_be_used_as_a_shared_secret(settings: Any) -> None:
    """The classic confusion: the public key as HMAC secret. One fixed algorithm refuses it."""
    private = ed25519.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    configure(settings, token_algorithm="EdDSA", token_keys={"shop": public.decode()})
    fluxgate = settings.FLUXGATE
    claims = {
        "sub": "ann",
        "iss": fluxgate.token_issuer,
        "aud": fluxgate.token_audience,
        "exp": 9_999_999_999,
    }
    assert Identity().customer(jwt.encode(claims, private, "EdDSA", headers={"kid": "shop"})) == "ann"
    confused = jwt.PyJWS().encode(b"{}", "x" * 32, "HS256", headers={"kid": "shop"})
    with pytest.raises(InvalidToken):
        Identity().customer(confused)
    with pytest.raises(ValueError, match="cannot sign"):
        mint("ann")


def test_no_tokens_are_minted_in_production(settings: Any) -> None:
    configure(settings, environment="production")
    with pytest.raises(ValueError, match="production"):
        mint("ann")


@given(VISIBLE)
def test_a_key_and_its_quoted_form_are_the_same(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert idempotency.parse(quoted) == key
    if not key.startswith('"'):
        assert idempotency.parse(key) == key


@given(st.text(max_size=300))
def test_what_is_parsed_is_1_to_255_visible_characters(header: str) -> None:
    try:
        key = idempotency.parse(header)
    except idempotency.KeyInvalid:
        return
    assert 1 <= len(key) <= 255
    assert all("!" <= character <= "~" for character in key)


@given(st.tuples(VISIBLE, VISIBLE), st.tuples(VISIBLE, VISIBLE))
def test_only_the_same_customer_and_key_are_the_same_order(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    sale = uuid4()
    assert (order_id(sale, *one) == order_id(sale, *other)) == (one == other)
    assert order_id(sale, *one) != order_id(uuid4(), *one)


def test_customer_and_key_do_not_run_into_each_other() -> None:
    sale = uuid4()
    assert order_id(sale, "a", "b:c") != order_id(sale, "a:b", "c")
    assert order_id(sale, "1", "1:1") != order_id(sale, "1:1", "1")


def test_an_admission_is_for_one_sale_and_customer_until_it_ends() -> None:
    token = admission.admit("sale", "ann", until=2_000)
    with time_machine.travel(datetime.fromtimestamp(1_999, UTC), tick=False):
        assert admission.is_live(token, "sale", "ann")
    with time_machine.travel(datetime.fromtimestamp(2_000, UTC), tick=False):
        assert not admission.is_live(token, "sale", "ann")
    for sale, customer in (("other", "ann"), ("sale", "bob")):
        with pytest.raises(admission.AdmissionInvalid):
            admission.is_live(token, sale, customer)


@pytest.mark.parametrize("forged", ["", "x", "a:b:c", "\0", "é", "W10:1abc:xyz"])
def test_a_forged_admission_is_told_from_one_that_ran_out(forged: str) -> None:
    with pytest.raises(admission.AdmissionInvalid):
        admission.is_live(forged, "sale", "ann")


def test_people_who_are_turned_away_together_do_not_return_together() -> None:
    waits = {shedding.retry_after(1_000) for _ in range(200)}
    assert len(waits) > 1
    assert all(1 <= wait <= 3 for wait in waits)
    assert all(shedding.retry_after(10**9) <= shedding.MOST_SECONDS + 2 for _ in range(50))


@pytest.mark.parametrize(
    ("header", "travels"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("", False),
        ("x" * 900_000, False),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nx", False),
    ],
    ids=["of W3C", "empty", "huge", "with more behind it"],
)
def test_only_a_trace_context_travels_with_the_claim(rf: RequestFactory, header: str, travels: bool) -> None:
    request = rf.post("/", headers={"traceparent": header})
    assert _traceparent(request) == (header if travels else None)

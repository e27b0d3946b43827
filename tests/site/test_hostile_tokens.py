"""Tokens that prove nothing: 401 and one clear problem each, at every call that asks who is there.

Each guard of sales/identity.py has its twin: with the guard removed, a token of the corpus gets in.
"""

import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
import requests

from sales import identity
from sales.identity import Identity, InvalidToken
from sales.models import Sale
from tests.running_site import Site, Web
from tests.site.hostile_tokens import KID, REFUSED, SHOP, token

NOBODY = "/api/v1/orders/0a6b895c-4a1a-5b5d-8a35-c14e1373281f"
DECODE = jwt.decode


@pytest.fixture(scope="module")
def web(site: Site) -> Web:
    """A web process that knows the shop's public key."""
    web = site.another_web(
        FLUXGATE_WEB_WORKERS="1",
        FLUXGATE_TOKEN_ALGORITHM="RS256",
        FLUXGATE_TOKEN_KEYS=json.dumps({KID: SHOP.public}),
    )
    web.wait("/readyz")
    return web


@pytest.fixture(scope="module")
def sale(site: Site) -> Sale:
    return site.sell()


def test_the_shops_own_token_is_taken(web: Web, sale: Sale) -> None:
    assert web.buy(sale.slug, "", Authorization=f"Bearer {token()}").status_code == 202


@pytest.mark.parametrize("kind", REFUSED)
def test_a_token_that_proves_nothing(web: Web, sale: Sale, kind: str) -> None:
    made = REFUSED[kind]()
    header = {"Authorization": f"Bearer {made}"}
    for answer in (
        web.buy(sale.slug, "", **header),
        web.get(NOBODY, **header),
        requests.post(f"{web.url}{NOBODY}/cancel", headers=header, timeout=20),
    ):
        assert answer.status_code == 401
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        body = answer.json()
        assert (body["type"], body["status"]) == ("/problems#unauthorized", 401)
        assert body["detail"]
        for part in filter(None, made.split(".")):
            assert len(part) < 8 or part not in answer.text  # nothing a client sent is echoed back


def _decoding(**options: Any) -> Callable[..., Any]:
    def decode(*arguments: Any, **named: Any) -> Any:
        return DECODE(*arguments, **named | {"options": named["options"] | options})

    return decode


def _any_algorithm(made: str, key: str, **named: Any) -> Any:
    named["algorithms"] = [jwt.get_unverified_header(made)["alg"]]
    return DECODE(made, key, **named)


def _any_subject(made: str, key: str, **named: Any) -> Any:
    claims = DECODE(made, key, **named | {"options": named["options"] | {"verify_sub": False}})
    return claims | {"sub": "x"}


TWINS: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "no signature asked for": (
        _decoding(verify_signature=False, verify_exp=True, verify_aud=True, verify_iss=True),
        ["a foreign signature", "a swapped payload", "a key in the header", "a key elsewhere"],
    ),
    "the token says how": (_any_algorithm, ["another hash", "another padding"]),
    "no end": (_decoding(verify_exp=False), ["expired", "expired in 1970"]),
    "no beginning": (_decoding(verify_nbf=False), ["not yet valid"]),
    "no date of issue": (_decoding(verify_iat=False), ["issued tomorrow"]),
    "no audience asked for": (_decoding(verify_aud=False), ["a foreign audience", "foreign audiences"]),
    "no issuer asked for": (_decoding(verify_iss=False), ["a foreign issuer"]),
    "any subject": (
        _any_subject,
        ["a subject with NUL", "a subject of 256", "a number for a subject", "a list for a subject"],
    ),
}


@pytest.fixture
def trusting(settings: Any) -> Identity:
    """Identity in this process, which knows the shop's public key."""
    settings.FLUXGATE = settings.FLUXGATE.model_copy(
        update={"token_algorithm": "RS256", "token_keys": {KID: SHOP.public}}
    )
    return Identity()


@pytest.mark.parametrize("twin", TWINS)
def test_twin_without_its_guard_a_token_gets_in(
    trusting: Identity, monkeypatch: pytest.MonkeyPatch, twin: str
) -> None:
    decode, kinds = TWINS[twin]
    for kind in kinds:
        made = REFUSED[kind]()
        with pytest.raises(InvalidToken):
            trusting.customer(made)
        with monkeypatch.context() as patched:
            patched.setattr(identity.jwt, "decode", decode)
            assert trusting.customer(made)
        trusting._known.clear()


def test_twin_an_unknown_kid_with_a_fallback_key_gets_in(trusting: Identity, settings: Any) -> None:
    made = REFUSED["no kid that is known"]()
    with pytest.raises(InvalidToken):
        trusting.customer(made)
    settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"token_keys": {"other": SHOP.public}})
    assert trusting.customer(made) == "ann"

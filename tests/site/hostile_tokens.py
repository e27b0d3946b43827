"""Tokens that prove nothing, for a site whose tokens are RS256 or HS256."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from jwt.algorithms import RSAAlgorithm


class Keys(NamedTuple):
    """A shop's key pair, PEM. The site knows the public one, everybody may."""

    private: rsa.RSAPrivateKey
    public: str


def fresh() -> Keys:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Keys(private, public.decode())


SHOP, THIEF = fresh(), fresh()
KID = "shop"


def token(
    key: Any = None, algorithm: str = "RS256", header: dict[str, Any] | None = None, **changed: Any
) -> str:
    """A token that is right but for what is changed; None leaves a claim out."""
    now = int(time.time())
    claims = {
        "sub": "ann",
        "iss": settings.FLUXGATE.token_issuer,
        "aud": settings.FLUXGATE.token_audience,
        "iat": now,
        "exp": now + 600,
    } | changed
    kept = {name: value for name, value in claims.items() if value is not None}
    payload = json.dumps(kept).encode()  # PyJWT itself would refuse to sign some of these
    return jwt.PyJWS().encode(payload, key or SHOP.private, algorithm, headers={"kid": KID} | (header or {}))


def _by_hand(header: dict[str, Any], secret: bytes | None, **changed: Any) -> str:
    """Signed with HMAC-SHA256, or not at all: what no library agrees to make."""
    payload = token(**changed).split(".")[1]
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    if secret is None:
        return f"{head}.{payload}."
    signature = hmac.new(secret, f"{head}.{payload}".encode(), hashlib.sha256).digest()
    return f"{head}.{payload}." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def _embedded() -> str:
    """Signed with the thief's key, whose public half is in the header: here, believe this."""
    own = json.loads(RSAAlgorithm.to_jwk(THIEF.private.public_key()))
    return token(THIEF.private, header={"jwk": own})


def _swapped() -> str:
    """Another payload under a signature that was right."""
    head, _, signature = token().split(".")
    return ".".join([head, token(sub="bob").split(".")[1], signature])


_NONE = {"typ": "JWT", "kid": KID}
_URL = "https://elsewhere.example/keys"

REFUSED: dict[str, Callable[[], str]] = {
    "a foreign signature": lambda: token(THIEF.private),
    "a swapped payload": _swapped,
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "two parts": lambda: token().rpartition(".")[0],
    "four parts": lambda: token() + ".x",
    "expired": lambda: token(exp=int(time.time()) - 5),
    "expired in 1970": lambda: token(exp=0),
    "no expiry": lambda: token(exp=None),
    "expiry as text": lambda: token(exp="never"),
    "expiry without end": lambda: token(exp=float("inf")),
    "not yet valid": lambda: token(nbf=int(time.time()) + 600),
    "issued tomorrow": lambda: token(iat=int(time.time()) + 86_400),
    "a foreign audience": lambda: token(aud="another-service"),
    "foreign audiences": lambda: token(aud=["another-service", "a-third"]),
    "no audience": lambda: token(aud=None),
    "a foreign issuer": lambda: token(iss="https://elsewhere.example"),
    "no issuer": lambda: token(iss=None),
    "alg none": lambda: _by_hand(_NONE | {"alg": "none"}, None),
    "alg None": lambda: _by_hand(_NONE | {"alg": "NoNe"}, None),
    "no alg": lambda: _by_hand(_NONE, None),
    "alg as a list": lambda: _by_hand(_NONE | {"alg": ["RS256"]}, None),
    "HS256 with the public key": lambda: _by_hand(_NONE | {"alg": "HS256"}, SHOP.public.encode()),
    "HS256 with the public key, cut": lambda: _by_hand(
        _NONE | {"alg": "HS256"}, SHOP.public.strip().encode()
    ),
    "HS256 with nothing": lambda: _by_hand(_NONE | {"alg": "HS256"}, b""),
    "another hash": lambda: token(algorithm="RS512"),
    "another padding": lambda: token(algorithm="PS256"),
    "no kid that is known": lambda: token(header={"kid": "other"}),
    "a kid of a file": lambda: _by_hand({"alg": "HS256", "kid": "../../../../dev/null"}, b""),
    "a kid of SQL": lambda: token(THIEF.private, header={"kid": "' UNION SELECT 'k"}),
    "a kid that is empty": lambda: token(header={"kid": ""}),
    "a key in the header": _embedded,
    "a key elsewhere": lambda: token(THIEF.private, header={"jku": _URL, "x5u": _URL}),
    "something critical": lambda: token(header={"crit": ["unheard-of"], "unheard-of": True}),
    "no subject": lambda: token(sub=None),
    "an empty subject": lambda: token(sub=""),
    "a subject with NUL": lambda: token(sub="ann\0"),
    "a subject with a line break": lambda: token(sub="ann\nbob"),
    "a subject with a lone surrogate": lambda: token(sub="\ud800"),
    "a subject of 256": lambda: token(sub="x" * 256),
    "a subject of 10,000": lambda: token(sub="x" * 10_000),
    "a number for a subject": lambda: token(sub=1),
    "a list for a subject": lambda: token(sub=["ann"]),
    "an object for a subject": lambda: token(sub={"$ne": None}),
    "truth for a subject": lambda: token(sub=True),
    "a list for a payload": lambda: jwt.PyJWS().encode(b"[]", SHOP.private, "RS256", headers={"kid": KID}),
    "no JSON for a payload": lambda: jwt.PyJWS().encode(b"x", SHOP.private, "RS256", headers={"kid": KID}),
    "NUL for a header": lambda: "AA.AA.AA",
    "deep lists for a header": lambda: base64.urlsafe_b64encode(b"[" * 3000).decode() + ".e30.x",
    "dots": lambda: "." * 60,
    "noise": lambda: "%%%.???.###",
}

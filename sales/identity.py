"""Who buys: the bearer token that the shop issues, verified without I/O and remembered for its life.

JWT per RFC 7519 with one fixed algorithm (so `alg=none` and key confusion cannot happen), `iss`,
`aud`, `exp` and `sub` required. Keys rotate by `kid`: publish the new one beside the old.
"""

import time
from collections import OrderedDict
from datetime import UTC, datetime, timedelta

import jwt
from django.conf import settings

_MOST_REMEMBERED = 50_000
_MOST_SECONDS = 365 * 86_400


class InvalidToken(Exception):
    """The token does not prove who is asking. The text says why, without the token."""


class Identity:
    """Verifies tokens for one process; a verified token is remembered until it expires."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def customer(self, token: str) -> str:
        """The customer the token names (its `sub`). Raises InvalidToken."""
        remembered = self.remembered(token)
        if remembered is not None:
            return remembered
        customer, expires = _verify(token)
        self._known[token] = (expires, customer)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return customer

    def remembered(self, token: str) -> str | None:
        """The customer of a token that was verified before and is still good."""
        known = self._known.get(token)
        if known is None:
            return None
        if time.time() < known[0]:
            return known[1]
        del self._known[token]
        return None


def _verify(token: str) -> tuple[str, float]:
    fluxgate = settings.FLUXGATE
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        # Without a kid the only key is meant; with several keys a token must say which.
        if kid is None and len(fluxgate.token_keys) == 1:
            kid = next(iter(fluxgate.token_keys))
        key = fluxgate.token_keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise InvalidToken("the token names no key that is known here")
        claims = jwt.decode(
            token,
            key,
            algorithms=[fluxgate.token_algorithm],
            issuer=fluxgate.token_issuer,
            audience=fluxgate.token_audience,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
    except (jwt.InvalidTokenError, ValueError) as error:
        raise InvalidToken(str(error)) from None
    customer = claims["sub"]
    # The customer travels through Lua, JSON and PostgreSQL text: no control characters, no lone surrogates.
    if not (0 < len(customer) <= 255 and customer.isprintable()):
        raise InvalidToken("the token's subject is not a customer id of 1 to 255 printable characters")
    # JSON knows integers that no float holds; a token for longer than a year is verified again.
    return customer, float(min(int(claims["exp"]), time.time() + _MOST_SECONDS))


def mint(customer: str, *, lifetime: timedelta = timedelta(hours=1)) -> str:
    """A token as the shop would issue it, for tests and demonstrations.

    Raises ValueError in production, and when only public keys are known here.
    """
    fluxgate = settings.FLUXGATE
    if fluxgate.production:
        raise ValueError("tokens are minted by the shop in production")
    kid, key = next(iter(fluxgate.token_keys.items()))
    claims = {
        "sub": customer,
        "iss": fluxgate.token_issuer,
        "aud": fluxgate.token_audience,
        "exp": datetime.now(UTC) + lifetime,
    }
    try:
        return jwt.encode(claims, key, algorithm=fluxgate.token_algorithm, headers={"kid": kid})
    except (jwt.PyJWTError, AttributeError, TypeError, ValueError) as error:
        # AttributeError is PyJWT's way to say that a public key cannot sign.
        raise ValueError(f"cannot sign with the configured key: {error}") from None

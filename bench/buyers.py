"""The buyers of a bench, with the tokens a shop would have given them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

_LIFETIME = timedelta(hours=2)


def write(path: Path, *, tokens: bool, count: int, name: str = "buyer-{}") -> None:
    """A line per buyer: the customer, and for our side the token, signed as the settings say.

    `name` is what they are called, with a place for the number.
    """
    with path.open("w") as file:
        for number in range(count):
            customer = name.format(number)
            file.write(f"{customer} {token(customer) if tokens else ''}\n")


def token(customer: str) -> str:
    import jwt
    from django.conf import settings

    fluxgate = settings.FLUXGATE
    kid, key = next(iter(fluxgate.token_keys.items()))
    claims = {
        "sub": customer,
        "iss": fluxgate.token_issuer,
        "aud": fluxgate.token_audience,
        "exp": datetime.now(UTC) + _LIFETIME,
    }
    return jwt.encode(claims, key, algorithm=fluxgate.token_algorithm, headers={"kid": kid})

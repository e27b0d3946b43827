"""Who asks, by HTTP: the buyer's token in the header Authorization."""

from typing import Any

from django.http import HttpRequest
from ninja.security import HttpBearer

from sales.identity import Identity, InvalidToken
from sales.problems import Problem


class Buyer(HttpBearer):
    """Row 1 of the decision table. `request.auth` is the customer."""

    async def __call__(self, request: HttpRequest) -> Any:
        return self.check(request)  # async, because ninja sends synchronous ones through a thread

    def check(self, request: HttpRequest) -> str:
        return customer_of(request)

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        raise NotImplementedError  # HttpBearer wants one; `check` does it all


def customer_of(request: HttpRequest) -> str:
    """The customer the request's token names. Raises Problem("unauthorized")."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise _unauthorized("")
    identity: Identity = request.scope["state"]["identity"]  # type: ignore[attr-defined]
    try:
        return identity.customer(token)
    except InvalidToken as error:
        raise _unauthorized(f"The token was not accepted: {error}.") from None


def _unauthorized(detail: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})

"""The crowd: real HTTP on the published port, each buyer with a token as the shop would issue it."""

import http.client
import json
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt

HOST, PORT = "127.0.0.1", 8000
AT_ONCE = 48
PATIENCE_SECONDS = 30

_mine = threading.local()


@dataclass(frozen=True)
class Answer:
    """What a request came to. `kind`: the problem's slug, or `queued` or `held`, `… again` for a replay."""

    customer: str
    key: str
    status: int
    kind: str
    order_id: str


@dataclass(frozen=True)
class Attempt:
    customer: str
    key: str


def attempts(first: int, last: int) -> list[Attempt]:
    """One per buyer; every fifth clicks twice with one key, every tenth asks for more than the limit."""
    made = []
    for number in range(first, last):
        customer, key = f"buyer-{number}", str(uuid.uuid4())
        made.append(Attempt(customer, key))
        if number % 5 == 0:
            made.append(Attempt(customer, key))
        if number % 10 == 1:
            made.append(Attempt(customer, str(uuid.uuid4())))
    return made


class Crowd:
    """Buyers of one sale; `key` signs their tokens under the key id `proof`."""

    def __init__(self, sale: str, key: str) -> None:
        self._sale = sale
        self._key = key

    def buy(self, wanted: list[Attempt]) -> list[Answer]:
        """All attempts, AT_ONCE at a time, each until its answer is definite."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self._buy, wanted))

    def order(self, answer: Answer) -> dict[str, object]:
        """The order as its buyer sees it."""
        _, _, body = request("GET", f"/api/v1/orders/{answer.order_id}", self._token(answer.customer))
        return body

    def _buy(self, attempt: Attempt) -> Answer:
        deadline = time.monotonic() + PATIENCE_SECONDS
        for pause in _pauses():
            status, headers, body = request(
                "POST",
                f"/api/v1/sales/{self._sale}/orders",
                self._token(attempt.customer),
                {"Idempotency-Key": attempt.key},
                {"quantity": 1},
            )
            if status == 202:
                kind = str(body["state"])
            else:
                kind = str(body.get("type", "")).rpartition("#")[2]
            # The contract's "ask again": with the same key that can never buy twice.
            again = kind == "all-units-held" or status in (429, 503)
            if not again or time.monotonic() > deadline:
                break
            time.sleep(pause)
        if headers.get("idempotency-replayed") == "true":
            kind += " again"
        order_id = str(body["order_id"]) if status == 202 else ""
        return Answer(attempt.customer, attempt.key, status, kind, order_id)

    def _token(self, customer: str) -> str:
        claims = {
            "sub": customer,
            "iss": "https://shop.example",
            "aud": "flux-gate",
            "exp": datetime.now(UTC) + timedelta(hours=1),
        }
        return jwt.encode(claims, self._key, algorithm="HS256", headers={"kid": "proof"})


def _pauses() -> Iterator[float]:
    pause = 0.1
    while True:
        yield pause
        pause = min(pause * 2, 2)


def request(
    method: str,
    path: str,
    token: str = "",
    headers: dict[str, str] | None = None,
    body: object = None,
) -> tuple[int, dict[str, str], dict[str, object]]:
    """Status, headers in lower case, the body if it is a JSON object. Each thread keeps its connection."""
    sent = {"Accept": "application/json", **(headers or {})}
    if token:
        sent["Authorization"] = f"Bearer {token}"
    if body is not None:
        sent["Content-Type"] = "application/json"
    connection = getattr(_mine, "connection", None)
    if connection is None:
        connection = _mine.connection = http.client.HTTPConnection(HOST, PORT, timeout=20)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        _mine.connection = None
        raise
    kind = answer.headers.get_content_type()
    found = json.loads(text) if kind.endswith("json") else {}
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, found

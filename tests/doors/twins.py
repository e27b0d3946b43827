"""The site with one small thing about its answers changed: what a comparison of doors must see.

`gunicorn tests.doors.twins:application`; a request names its twin in the header `X-Twin`.
"""

from collections.abc import Callable
from typing import Any

from fluxgate_site.asgi import application as whole

Message = dict[str, Any]
NAME = b"x-twin"


def _headers(message: Message, change: Callable[[dict[bytes, bytes]], Any]) -> Message:
    if message["type"] != "http.response.start":
        return message
    headers = dict(message["headers"])
    change(headers)
    return message | {"headers": list(headers.items())}


def _said(**headers: str) -> Callable[[Message], Message]:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return lambda message: _headers(message, lambda known: known.update(named))


def _left_out(name: str) -> Callable[[Message], Message]:
    return lambda message: _headers(message, lambda known: known.pop(name.encode(), None))


def _with_status(status: int) -> Callable[[Message], Message]:
    return lambda message: message | {"status": status} if "status" in message else message


def _other_body(message: Message) -> Message:
    return message | {"body": message["body"].replace(b"queued", b"QUEUED")} if "body" in message else message


TWINS: dict[str, Callable[[Message], Message]] = {
    "no Cache-Control": _left_out("cache-control"),
    "no Location": _left_out("location"),
    "no nosniff": _left_out("x-content-type-options"),
    "no length": _left_out("content-length"),
    "a header of its own": _said(x_door="twin"),
    "another type": _said(content_type="application/json; charset=utf-8"),
    "another order": _said(location="/api/v1/orders/00000000-0000-0000-0000-000000000000"),
    "asks to come back": _said(retry_after="1"),
    "closes": _said(connection="close"),
    "another status": _with_status(200),
    "another body": _other_body,
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    change = TWINS.get(dict(scope.get("headers", [])).get(NAME, b"").decode())

    async def changed(message: Any) -> None:
        await send(change(message) if change else message)

    await whole(scope, receive, changed)

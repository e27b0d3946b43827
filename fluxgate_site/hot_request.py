"""Django's request for the hot door: what an order needs at once, the rest when somebody asks."""

from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIRequest


class Headers:
    """The headers as the parser gave them. No name may come twice: such a request goes another way."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[bytes, bytes]) -> None:
        self._fields = fields

    def get(self, name: str, default: Any = None) -> Any:
        value = self._fields.get(_raw[name])
        return default if value is None else value.decode("latin-1")

    def __getitem__(self, name: str) -> str:
        return self._fields[_raw[name]].decode("latin-1")

    def __contains__(self, name: str) -> bool:
        return _raw[name] in self._fields


class _Raw(dict[str, bytes]):
    """Names of headers as the parser spells them. Only our code asks, for a handful of them."""

    def __missing__(self, name: str) -> bytes:
        raw = self[name] = name.lower().encode("latin-1")
        return raw


_raw = _Raw()


class HotRequest(ASGIRequest):
    """An ASGIRequest whose META, content type and stream are made when they are first asked for."""

    def __init__(self, scope: Any, fields: dict[bytes, bytes], body: bytes) -> None:
        self._made = False
        self.scope = scope
        self.method = scope["method"]
        self.path = self.path_info = scope["path"]
        self.headers = Headers(fields)  # type: ignore[assignment]
        self._body = body
        if fields.get(b"content-type") == b"application/json":
            self.content_type = "application/json"

    def __getattr__(self, name: str) -> Any:  # called for what is missing
        if self._made:
            raise AttributeError(name)
        self._made = True
        super().__init__(self.scope, BytesIO(self._body))
        return getattr(self, name)

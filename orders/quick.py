"""ninja's operation for the order path, without reading the same request again and again.

ninja builds a response it does not use and validates path and body into pydantic models: 40 µs of a
request. But almost every order has the same few bytes for a body, and what they mean does not change:
arguments that were valid once are remembered by the bytes they came from. What was not valid is never
remembered, so every error goes through ninja's own path.
"""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from ninja.operation import AsyncOperation

MOST_BODY_BYTES = 64
MOST_REMEMBERED = 4096


class QuickOperation(AsyncOperation):
    """For operations that return an HttpResponse and take path and body, a frozen model, as arguments.

    Their `auth` has a method `check`, which raises, or returns what `request.auth` is to be. They may
    await futures, and must not ask asyncio for their task: behind the hot door they have none.
    """

    remembered: dict[Any, dict[str, Any]]

    async def run(self, request: HttpRequest, **path: Any) -> Any:  # type: ignore[override]
        try:
            for callback in self.auth_callbacks:
                request.auth = callback.check(request)  # type: ignore[attr-defined]
            return await self.view_func(request, **self._arguments(request, path))
        except Exception as error:
            return self.api.on_exception(request, error)

    def clone(self) -> Any:
        cloned: Any = super().clone()
        cloned.remembered = {}
        return cloned

    def _arguments(self, request: HttpRequest, path: dict[str, Any]) -> dict[str, Any]:
        given = (request.body, *path.values())
        arguments = self.remembered.get(given)
        if arguments is None:
            arguments = self._get_values(request, path, None)  # type: ignore[arg-type]
            if len(request.body) <= MOST_BODY_BYTES:
                if len(self.remembered) >= MOST_REMEMBERED:
                    self.remembered.clear()
                self.remembered[given] = arguments
        return arguments


def quick(view: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the operation of this view a QuickOperation. To be written below the router's decorator."""

    def contribute(operation: Any) -> None:
        operation.__class__ = QuickOperation
        operation.remembered = {}

    view._ninja_contribute_to_operation = [contribute]  # type: ignore[attr-defined]  # ninja's own hook
    return view

"""An answer that is complete when it is made."""

from typing import Any

from django.http import HttpResponse

from sales.refusals import Refusals


class Reply(HttpResponse):
    """Status, body and headers, for whoever only has to write them out.

    Django's constructor costs as much as a whole refusal (8 µs), so it runs when somebody first asks
    for something it sets: a middleware, say, or `response["Name"] = value`.

    With `refusals` it is a refusal that they repeat: whoever they know as well may be told the same.
    """

    def __init__(
        self, status: int, body: bytes, headers: dict[str, str], refusals: Refusals | None = None
    ) -> None:
        self.status_code = status
        self.body = body
        self.given = headers
        self.refusals = refusals
        self._made = False

    def __getattr__(self, name: str) -> Any:  # called for what is missing
        if self._made:
            raise AttributeError(name)
        self._made = True
        super().__init__(self.body, status=self.status_code, headers=self.given)
        return getattr(self, name)


def written(response: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a response that is not streamed."""
    if type(response) is Reply and not response._made:
        return response.body, response.given
    return response.content, dict(response.items())

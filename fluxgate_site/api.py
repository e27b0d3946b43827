"""The API as one object: routers, error bodies, the OpenAPI document. No rules of its own."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.openapi.schema import OpenAPISchema

from fluxgate_site.bodies import StrictParser
from fluxgate_site.failing import failure
from orders.api import router as orders
from orders.my_orders import router as my_orders
from sales.api import router as sales
from sales.problems import CONTENT_TYPE, Problem
from waitingroom.api import router as waitingroom
from waitingroom.brand_api import router as brand


class Api(NinjaAPI):
    """ninja describes every answer as `application/json`; a refusal is `application/problem+json`."""

    def get_openapi_schema(self, **named: Any) -> OpenAPISchema:
        document = super().get_openapi_schema(**named)
        for methods in document["paths"].values():
            for operation in methods.values():
                for response in operation["responses"].values():
                    content = response.get("content", {})
                    if _is_problem(content.get("application/json")):
                        content[CONTENT_TYPE] = content.pop("application/json")
        return document


def _is_problem(media: dict[str, Any] | None) -> bool:
    return media is not None and media["schema"].get("$ref", "").endswith("/ProblemBody")


api = Api(
    title="Flux-Gate",
    version="1.0.0",
    description=(
        "Flash sales: place an order with an `Idempotency-Key`, then follow its status. "
        "Refusals are RFC 9457 problems, documented at [/problems](/problems)."
    ),
    docs_url="/docs",
    openapi_url="/openapi.json",
    urls_namespace="api-v1",
    parser=StrictParser(),
)
api.add_router("", sales)
api.add_router("", waitingroom)
api.add_router("", brand)
api.add_router("", orders)
api.add_router("", my_orders)


@api.exception_handler(Problem)
def on_problem(request: HttpRequest, problem: Problem) -> HttpResponse:
    return problem.response()


@api.exception_handler(ValidationError)
def on_invalid(request: HttpRequest, error: ValidationError) -> HttpResponse:
    return Problem("invalid-request", errors=[_described(e) for e in error.errors]).response()


@api.exception_handler(HttpError)
def on_http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
    slug = {400: "malformed-request", 404: "not-found"}.get(error.status_code, "malformed-request")
    return Problem(slug).response()


@api.exception_handler(Http404)
def on_not_found(request: HttpRequest, error: Http404) -> HttpResponse:
    return Problem("not-found").response()


@api.exception_handler(Exception)
def on_failure(request: HttpRequest, error: Exception) -> HttpResponse:
    return failure(error, path=request.path)


def _described(error: dict[str, Any]) -> dict[str, str]:
    """Where and what, without the input: nothing a client sent is echoed back."""
    where: Iterable[Any] = [part for part in error.get("loc", ()) if part != "body"]
    field = ".".join(str(part)[:64] for part in where).encode("ascii", "replace").decode()
    return {"field": field, "message": str(error.get("msg", HTTPStatus.UNPROCESSABLE_ENTITY.phrase))}

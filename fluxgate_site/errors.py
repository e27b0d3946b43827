"""Addresses of the API that do not exist answer as the rest of the API does."""

from django.http import HttpRequest, HttpResponse

from sales.problems import Problem


def not_found(request: HttpRequest) -> HttpResponse:
    return Problem("not-found").response()

"""Addresses of the API that do not exist answer as the rest of the API does."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from sales.problems import Problem


@csrf_exempt  # the API has no cookies
def not_found(request: HttpRequest) -> HttpResponse:
    return Problem("not-found").response()

"""What django-axes answers to a sign-in that it has locked."""

from typing import Any

import structlog
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

logger = structlog.get_logger(__name__)

TOO_MANY_REQUESTS = 429


def locked(request: HttpRequest, response: Any, credentials: Any = None) -> HttpResponse:
    """A page instead of the login form, also for the right password. Its parameters are axes'."""
    name, address = request.POST.get("username", ""), request.META.get("REMOTE_ADDR", "")
    logger.warning("sign-in locked", user=name, address=address)
    context = {
        **admin.site.each_context(request),
        "title": "Locked for a while",
        "minutes": int(settings.AXES_COOLOFF_TIME.total_seconds() // 60),
        "failures": settings.AXES_FAILURE_LIMIT,
    }
    return render(request, "admin/locked.html", context, status=TOO_MANY_REQUESTS)

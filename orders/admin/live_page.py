"""The live page of one sale: what it shows stands in `live_numbers`, how in static/orders/live.js."""

from uuid import UUID

from django.conf import settings
from django.contrib.admin import site
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from unfold.admin import ModelAdmin

from orders.admin.live_numbers import numbers
from sales.gate import Verdict
from sales.models import Sale, SaleState

# How static/orders/live_rates.js adds the verdicts up, in its order.
GROUPS = (
    ("claimed", "granted"),
    ("replayed", "the same order again"),
    ("asked to come back", "busy, admission_required, not_open, paused"),
    ("refused", "sold_out, limit_reached, key_reused, closed"),
    ("unavailable", "gate or log did not answer"),
)


def live_page(admin: ModelAdmin, request: HttpRequest, sale_id: UUID) -> HttpResponse:
    """Whoever may see sales sees it. It changes nothing. What is settled has a report instead."""
    sale = _sale(request, sale_id)
    if sale.state == SaleState.SETTLED:
        return HttpResponseRedirect(reverse("admin:orders_report", args=[sale.pk]))
    return TemplateResponse(
        request,
        "admin/orders/live_page.html",
        {
            **admin.admin_site.each_context(request),
            "title": f"“{sale.name}” live",
            "opts": Sale._meta,
            "original": sale,
            "sale": sale,
            "numbers": numbers(request, sale),
            "zone": settings.TIME_ZONE,
            "numbers_url": reverse("admin:orders_live_numbers", args=[sale.pk]),
            "verdicts": [*map(str, Verdict), "unavailable"],
            "groups": GROUPS,
        },
    )


def live_numbers(request: HttpRequest, sale_id: UUID) -> HttpResponse:
    """The same numbers as JSON: what the page asks for every two seconds."""
    return JsonResponse(numbers(request, _sale(request, sale_id)))


def _sale(request: HttpRequest, sale_id: UUID) -> Sale:
    if not site.get_model_admin(Sale).has_view_permission(request):
        raise PermissionDenied
    sale = Sale.objects.filter(pk=sale_id).first()
    if sale is None:
        raise Http404
    return sale

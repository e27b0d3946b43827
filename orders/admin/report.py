"""The report of a sale as a page, as JSON and as CSV."""

import csv
import json
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.admin import ModelAdmin

from orders.admin.balance import VERDICT_COLOURS
from orders.report import NOT_ARMED, report, rows
from sales.admin.events import history_of
from sales.models import Sale


def report_page(admin: ModelAdmin, request: HttpRequest, sale_id: UUID) -> HttpResponse:
    """Whoever may see sales and orders sees it; `?as=json` and `?as=csv` are files. It changes nothing."""
    if not (admin.has_view_permission(request) and request.user.has_perm("sales.view_sale")):
        raise PermissionDenied
    sale = Sale.objects.select_related("product").filter(pk=sale_id).exclude(state__in=NOT_ARMED).first()
    if sale is None:
        raise Http404
    told = report(sale)
    match request.GET.get("as"):
        case "json":
            return _file(sale, "json", json.dumps(told, indent=2, ensure_ascii=False) + "\n")
        case "csv":
            return _table(sale, told)
    return TemplateResponse(
        request,
        "admin/orders/report.html",
        {
            **admin.admin_site.each_context(request),
            "title": f"Report of “{sale.name}”",
            "opts": Sale._meta,
            "original": sale,
            "sale": sale,
            "told": told,
            "history": history_of(sale),
            "colour": VERDICT_COLOURS.get(told["balance"]["verdict"], "danger"),
        },
    )


def _table(sale: Sale, told: dict[str, Any]) -> HttpResponse:
    response = _file(sale, "csv", "")
    table = csv.writer(response)
    table.writerow(("section", "name", "value"))
    table.writerows(rows(told))
    return response


def _file(sale: Sale, kind: str, text: str) -> HttpResponse:
    types = {"json": "application/json", "csv": "text/csv; charset=utf-8"}
    response = HttpResponse(text, content_type=types[kind])
    response["Content-Disposition"] = f'attachment; filename="report-{sale.slug}.{kind}"'
    response["Cache-Control"] = "no-store"
    return response

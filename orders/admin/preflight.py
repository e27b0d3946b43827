"""Before a sale opens: is everything as it has to be? One page, green or with what to do about it."""

from functools import partial
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold.admin import ModelAdmin

from orders.doctor import CHECKS, Finding, Level, examine
from orders.doctor.sale import examine as examine_sale
from sales.models import Sale, SaleState

# Somebody waits for the page: a server that takes longer than this is a finding.
SECONDS = 10.0
OVER = (SaleState.CLOSING, SaleState.CLOSED, SaleState.SETTLED)
COLOURS = {Level.OK: "success", Level.WARN: "warning", Level.FAIL: "danger"}


def preflight_page(admin: ModelAdmin, request: HttpRequest, sale_id: UUID) -> HttpResponse:
    """Whoever may see the sale sees it. It changes nothing."""
    if not (admin.has_view_permission(request) and request.user.has_perm("sales.view_sale")):
        raise PermissionDenied
    sale = Sale.objects.filter(pk=sale_id).exclude(state__in=OVER).first()
    if sale is None:
        raise Http404
    findings = examine({"sale": partial(examine_sale, sale.pk), **CHECKS}, SECONDS)
    verdict, colour = judge(findings)
    return TemplateResponse(
        request,
        "admin/orders/preflight.html",
        {
            **admin.admin_site.each_context(request),
            "title": f"Pre-flight of “{sale.name}”",
            "opts": Sale._meta,
            "original": sale,
            "sale": sale,
            "verdict": verdict,
            "colour": colour,
            "areas": areas(findings),
            "at": timezone.now(),
        },
    )


def areas(findings: list[Finding]) -> list[tuple[str, list[tuple[str, Finding]]]]:
    """What to do first, the worst on top; then what is well, area by area. Each with its colour."""
    found: dict[str, list[tuple[str, Finding]]] = {}
    for level in (Level.FAIL, Level.WARN, Level.OK):
        for finding in findings:
            if finding.level == level:
                area = finding.area if level == Level.OK else "what to do"
                found.setdefault(area, []).append((COLOURS[level], finding))
    return list(found.items())


def judge(findings: list[Finding]) -> tuple[str, str]:
    """The verdict over all of it and its colour: one thing that fails is enough for “not ready”."""
    levels = [finding.level for finding in findings]
    failing, warning = levels.count(Level.FAIL), levels.count(Level.WARN)
    if failing:
        return f"Not ready: {failing} of {len(levels)} checks fail", COLOURS[Level.FAIL]
    if warning:
        return f"Ready, with {warning} to look at", COLOURS[Level.WARN]
    return "Ready", COLOURS[Level.OK]

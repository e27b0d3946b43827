"""What the first page of the admin says about sales."""

from typing import Any

from django import template

from sales.models import Sale, SaleEvent, SaleState

register = template.Library()

# What an operator has to keep an eye on; drafts and finished sales are a click away.
_WATCHED = (
    SaleState.OPEN,
    SaleState.PAUSED,
    SaleState.CLOSING,
    SaleState.ARMED,
    SaleState.ARMING,
    SaleState.SCHEDULED,
)


@register.simple_tag
def watched_sales(user: Any, limit: int = 8) -> list[dict[str, Any]]:
    """Running and coming sales, the next to open first; none for somebody who may not see sales."""
    # Unfold renders a template while it is imported, and by that this library: too early for the admin.
    from sales.admin.sale_windows import STATE_COLOURS

    if not (user.has_perm("sales.view_sale") or user.has_perm("sales.change_sale")):
        return []
    sales = Sale.objects.filter(state__in=_WATCHED).select_related("product").order_by("opens_at")[:limit]
    return [
        {
            "sale": sale,
            "remaining": sale.allotment - sale.sold,
            "colour": STATE_COLOURS[SaleState(sale.state)],
        }
        for sale in sales
    ]


@register.simple_tag
def latest_events(user: Any, limit: int = 8) -> list[Any]:
    """What happened last, by whom and why; nothing for somebody who may not see events."""
    from sales.admin.events import line

    if not user.has_perm("sales.view_saleevent"):
        return []
    return [line(event) for event in SaleEvent.objects.select_related("sale", "product")[:limit]]

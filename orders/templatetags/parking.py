"""What the first page of the admin says about records that fulfillment could not use."""

from typing import Any

from django import template

from orders.models import ParkedRecord, ParkedState

register = template.Library()


@register.simple_tag
def parked_records(user: Any, at_most: int = 100) -> int:
    """How many records are still parked, counted up to `at_most`; 0 for somebody who may not see them."""
    if not user.has_perm("orders.view_parkedrecord"):
        return 0
    return ParkedRecord.objects.filter(state=ParkedState.PARKED).order_by()[:at_most].count()

"""`{% brand as brand %}`: the merchant's brand, for pages that are rendered."""

from django import template

from waitingroom.brand import BrandFacts, current

register = template.Library()


@register.simple_tag
def brand() -> BrandFacts:
    return current()

"""The operator's desk for supply: products, sale windows, the events of both."""

from sales.admin import events, products, sale_windows

__all__ = ["events", "products", "sale_windows"]

"""The order book on the operator's desk: orders, positions, and the records that were parked."""

from orders.admin import order_book, parked

__all__ = ["order_book", "parked"]

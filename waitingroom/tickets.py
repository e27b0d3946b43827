"""Tickets: a number in the line of a sale, signed for one customer, who stands in it as a tag.

Redis knows the number of every customer, so a reload, a lost cookie or another device finds the same
place. The signature is for the day on which Redis has lost it: who shows the ticket keeps the place.
"""

from django.core import signing

_SALT = "fluxgate.waitingroom.ticket"


def sign(sale: str, tag: str, number: int) -> str:
    """`sale` is the sale's key, `tag` how the customer is listed: anybody can read what is signed."""
    return signing.dumps([sale, tag, number], salt=_SALT)


def read(ticket: str) -> tuple[str, str, int] | None:
    """The sale's key, the tag and the number of a ticket, None for one that is not ours."""
    try:
        sale, tag, number = signing.loads(ticket, salt=_SALT)
        return str(sale), str(tag), int(number)
    except (signing.BadSignature, ValueError, TypeError):
        return None


def number_of(ticket: str, sale: str, tag: str) -> int | None:
    """The number of a ticket that was made out for this sale and tag, else None."""
    found = read(ticket)
    return found[2] if found and found[:2] == (sale, tag) else None

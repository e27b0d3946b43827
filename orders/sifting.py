"""Sifting: which records of a batch can become orders, which come too late, which nobody can use.

Asks the order book and changes nothing in it.
"""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from orders import book, epochs
from orders.book import Read, SaleFacts
from orders.claims import (
    BadRecord,
    Barrier,
    Cancel,
    Claim,
    Message,
    UnknownVersion,
    claim_in,
    decode,
    pool_in,
    sale_in,
)


class NewerVersion(Exception):
    """The record at `offset` was written by a newer release: nothing was written, the position has not moved.

    The records before it can be fulfilled; it waits for a release that can read it.
    """

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"offset {offset}: {why}")
        self.offset = offset


class Parked(NamedTuple):
    read: Read
    cause: str


class Sifted(NamedTuple):
    usable: list[tuple[Read, Claim | Cancel]]
    parked: list[Parked]
    barriers: dict[epochs.Pool, int]
    stale: int


def sift(records: Sequence[Read], *, patient: bool) -> Sifted:
    """Parts the records that can be used from those that cannot, each with its cause."""
    decoded: list[tuple[Read, Message]] = []
    parked: list[Parked] = []
    for read in records:
        try:
            decoded.append((read, decode(read.value)))
        except UnknownVersion as error:
            if patient:
                raise NewerVersion(read.offset, str(error)) from None
            parked.append(Parked(read, str(error)))
        except BadRecord as error:
            parked.append(Parked(read, str(error)))
    pools = {(sale_in(message), pool_in(message)) for _, message in decoded}
    sales = book.sales({sale_id for sale_id, _ in pools})
    reached = epochs.passed(pools)
    sifted = Sifted([], parked, {}, 0)
    stale = 0
    for read, message in decoded:
        if objection := objection_to(message, sales.get(sale_in(message))):
            parked.append(Parked(read, objection))
        elif isinstance(message, Barrier):
            pool = (message.sale_id, message.pool)
            reached[pool] = sifted.barriers[pool] = max(reached[pool], message.epoch)
        elif isinstance(message, Claim) and message.epoch < reached[message.sale_id, message.pool]:
            stale += 1
        else:
            sifted.usable.append((read, message))
    return sifted._replace(stale=stale)


def objection_to(message: Message, sale: SaleFacts | None) -> str:
    """I6: an order has a claim of a known sale at the armed price. Empty when there is nothing against it."""
    if sale is None:
        return f"there is no sale {sale_in(message)}"
    if isinstance(message, Barrier):
        return ""
    claim = claim_in(message)
    try:
        if (claim.unit_price, claim.currency) != (sale.unit_price, sale.currency):
            return (
                f"priced {claim.unit_price} {claim.currency}, the sale says {sale.unit_price} {sale.currency}"
            )
    except ArithmeticError as error:  # a value that cannot even be compared
        return one_line(error)
    if claim.product_id != sale.product_id:
        return f"product {claim.product_id}, the sale says {sale.product_id}"
    if "\0" in claim.user_id:
        return "a NUL byte in the customer"
    return ""


class _Names(msgspec.Struct):
    order_id: UUID | None = None
    sale_id: UUID | None = None


class _Within(_Names):
    claim: _Names | None = None  # of a cancel


_within = msgspec.json.Decoder(_Within).decode


def names_in(value: bytes) -> dict[str, str]:
    """`order_id` and `sale_id` of a record that cannot be used, as far as anybody can read them."""
    try:
        named = _within(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    names = named.claim or named
    return {name: str(known) for name in names.__struct_fields__[:2] if (known := getattr(names, name))}


def one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

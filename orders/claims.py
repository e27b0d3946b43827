"""The wire format of the log: version 1, pinned by `tests/orders/golden/`.

A record's value is one JSON object, tagged by `type`, with the version in `v`. Decoding is
strict: an unknown field, a missing one or a wrong type raises `BadRecord`, and that is the
poison check. CloudEvents attributes travel as headers (binary mode of the Kafka binding of
CloudEvents 1.0), beside the W3C `traceparent` of the request when there was one.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from hashlib import sha1
from typing import Annotated, Final, Literal, NamedTuple
from uuid import UUID

import msgspec

VERSION: Final = 1
SOURCE = "/flux-gate/gate"  # ce_source
CONTENT_TYPE = "application/json"

Units = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Customer = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Money = Annotated[Decimal, msgspec.Meta(description="decimal string, two places")]
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="claim"):
    """What the gate granted. `claimed_at` is UTC on the gate's clock, to the millisecond."""

    v: Literal[1]
    order_id: UUID
    sale_id: UUID
    product_id: int
    user_id: Customer
    quantity: Units
    unit_price: Money
    currency: str
    pool: int
    epoch: int
    claimed_at: Timestamp

    def __post_init__(self) -> None:
        if not self.unit_price.is_finite():  # Decimal reads "NaN", and comparing it may raise
            raise ValueError("unit_price is not a number")
        if not 2000 <= self.claimed_at.year <= 9998:  # beyond them time zones leave Python's calendar
            raise ValueError("claimed_at is not of our time")


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="cancel"):
    """A wish to give an order's units back. Whichever the log shows first, claim or cancel, wins.

    It carries the whole claim, so that a cancel read before its claim can still write the row
    that makes the claim lose.
    """

    v: Literal[1]
    claim: Claim
    reason: Literal["buyer", "operator"]
    cancelled_at: Timestamp


class Barrier(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="barrier"):
    """A new arming of a pool: claims of earlier epochs that stand behind it in the log come too late."""

    v: Literal[1]
    sale_id: UUID
    pool: Annotated[int, msgspec.Meta(ge=0, le=2**15 - 1)]
    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
    at: Timestamp


Message = Claim | Cancel | Barrier


class Record(NamedTuple):
    """What is appended to the log: the partition and key of the pool, the value, the headers."""

    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class BadRecord(ValueError):
    """The value is not a message of this version. The text says why, in one line."""


class UnknownVersion(BadRecord):
    """The value claims a version that this code does not know: a newer release wrote it."""


class _Version(msgspec.Struct):
    v: int


_encoder = msgspec.json.Encoder(decimal_format="string", uuid_format="canonical")
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_VARIANTS = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}  # RFC 9562: the bits 10
_version: Callable[[bytes], _Version] = msgspec.json.Decoder(_Version).decode


def order_id(sale_id: UUID, customer: str, idempotency_key: str) -> str:
    """The id every book knows the order by: the same for the same sale, customer and key, after any loss.

    The canonical spelling of a UUID of version 5 (RFC 9562), without making the object. The length prefix
    keeps ("a", "b:c") and ("a:b", "c") apart.
    """
    name = f"{len(customer)}:{customer}:{idempotency_key}".encode()
    digits = sha1(sale_id.bytes + name).hexdigest()  # noqa: S324  # no secret
    variant = _VARIANTS[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


@lru_cache(maxsize=4096)
def pool_key(sale_id: UUID, pool: int) -> bytes:
    """The record key: the pool, so that all that happens to one counter is totally ordered."""
    return f"{sale_id}:{pool}".encode()


def encode(message: Message, partition: int, traceparent: str | None = None) -> Record:
    sale_id = sale_in(message)
    if type(message) is Claim:
        kind, about, at = "order.claimed", f"{message.order_id}:claimed", message.claimed_at
    elif type(message) is Cancel:
        kind = "order.cancel-requested"
        about, at = f"{message.claim.order_id}:cancel-requested", message.cancelled_at
    else:
        assert type(message) is Barrier
        kind, about, at = "pool.rearmed", f"{sale_id}:{message.pool}:{message.epoch}", message.at
    headers = [
        *_common_attributes(kind, sale_id),
        ("ce_id", about.encode()),
        ("ce_time", _time(at)),
    ]
    if traceparent:
        headers.append(("traceparent", traceparent.encode()))
    return Record(partition, pool_key(sale_id, pool_in(message)), _encoder.encode(message), headers)


@lru_cache(maxsize=256)
def _time(at: datetime) -> bytes:
    return at.isoformat().replace("+00:00", "Z").encode()


@lru_cache(maxsize=4096)
def _common_attributes(kind: str, sale_id: UUID) -> list[tuple[str, bytes]]:
    """The CloudEvents attributes that all messages of a kind about a sale share."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_source", SOURCE.encode()),
        ("ce_type", f"com.fluxgate.{kind}.v1".encode()),
        ("ce_subject", str(sale_id).encode()),
        ("content-type", CONTENT_TYPE.encode()),
    ]


class ClaimForm:
    """Claims of one arming of a pool as records, with all that they share encoded once.

    Byte for byte what `encode` makes of such a claim, with less work for each.
    """

    def __init__(self, shared: Claim, partition: int) -> None:
        """`shared` is any claim of the arming."""
        self._partition = partition
        self._key = pool_key(shared.sale_id, shared.pool)
        self._attributes = _common_attributes("order.claimed", shared.sale_id)
        fields = msgspec.to_builtins(shared, builtin_types=(Decimal,))
        self._value = b"{%b}" % b",".join(
            b'"%b":%b' % (name.encode(), _VARYING.get(name) or _encoder.encode(value).replace(b"%", b"%%"))
            for name, value in fields.items()
        )

    def record(
        self, order_id: str, customer: str, quantity: int, claimed_at: datetime, traceparent: str | None
    ) -> Record:
        at = _time(claimed_at)
        headers = [*self._attributes, ("ce_id", f"{order_id}:claimed".encode()), ("ce_time", at)]
        if traceparent:
            headers.append(("traceparent", traceparent.encode()))
        value = self._value % (order_id.encode(), _encoder.encode(customer), quantity, at)
        return Record(self._partition, self._key, value, headers)


_VARYING = {"order_id": b'"%b"', "user_id": b"%b", "quantity": b"%d", "claimed_at": b'"%b"'}


def claim_in(message: Claim | Cancel) -> Claim:
    return message if isinstance(message, Claim) else message.claim


def sale_in(message: Message) -> UUID:
    return message.claim.sale_id if isinstance(message, Cancel) else message.sale_id


def pool_in(message: Message) -> int:
    return message.claim.pool if isinstance(message, Cancel) else message.pool


def decode(value: bytes | None) -> Message:
    """The message in a record's value.

    Raises UnknownVersion when the version is another one, BadRecord for everything else.
    """
    if value is None:
        raise BadRecord("the value is empty")
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse_another_version(value)
        raise BadRecord(str(error)) from None


def _refuse_another_version(value: bytes) -> None:
    try:
        version = _version(value).v
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    if version != VERSION:
        raise UnknownVersion(f"version {version}, this release reads version {VERSION}") from None

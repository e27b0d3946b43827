"""What the doors are asked, as data: a request, the sale it is about, and what its answer must be.

questions_orders.py and questions_others.py are the corpus; test_contract.py asks each question at every
door. The answer that is written here only proves that a question is about what it says.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, UUID, uuid5

from orders.claims import order_id
from sales.identity import mint
from tests.site.hostile import GOOD, Header, Stage, get, order

KEY = "k-1"  # of every order that names no other: each question has a customer of its own
Asking = Callable[[Stage], bytes]


class Question(NamedTuple):
    """`before` is asked first, through the same door. Retry-After may differ by `drift` seconds."""

    status: int
    slug: str  # of the problem; empty when there is none
    ask: Asking
    sale: str = "open"
    before: tuple[Asking, ...] = ()
    drift: int = 0
    customer: str = ""  # empty for one who has never been here
    key: str = KEY  # as the gate knows it


def sale_id(slug: str) -> UUID:
    """Of the sales made for these questions, so that an order's id is known before it is placed."""
    return uuid5(NAMESPACE_URL, slug)


def order_of(stage: Stage, key: str = KEY) -> UUID:
    return UUID(order_id(sale_id(stage.slug), stage.customer, key))


def an_order(*headers: Header, body: bytes = GOOD, key: str | bytes = KEY, **options: Any) -> Asking:
    """An order; a header that is named here replaces the usual one."""
    named = {name.lower() for name, _ in headers}
    drop = options.pop("drop", ())
    drop += tuple(name for name in ("Authorization", "Content-Type", "Accept") if name.lower() in named)

    def ask(stage: Stage) -> bytes:
        return order(stage, body, *headers, key=key, drop=drop, last=False, **options)

    return ask


def at(path: str, *headers: Header, method: str = "GET") -> Asking:
    """A request without a body; `{slug}` and `{order}` in the path are the stage's."""

    def ask(stage: Stage) -> bytes:
        filled = path.replace("{slug}", stage.slug).replace("{order}", str(order_of(stage)))
        return get(stage, filled, *headers, method=method, last=False)

    return ask


def by(customer: str, asking: Asking) -> Asking:
    """The same, asked by somebody else."""
    return lambda stage: asking(Stage(stage.slug, customer))


def bearer(token: Callable[[Stage], str], scheme: str = "Bearer") -> Asking:
    """An order with a token of this making."""
    return lambda stage: an_order(("Authorization", f"{scheme} {token(stage)}"))(stage)


def own(stage: Stage) -> str:
    return mint(stage.customer)


def placed_by(line: str) -> Asking:
    """An order with another request line; `{slug}` in it is the stage's."""

    def ask(stage: Stage) -> bytes:
        return an_order(line=line.replace("{slug}", stage.slug))(stage)

    return ask

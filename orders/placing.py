"""Placing an order: the gate decides, the log remembers, the buyer is promised.

Knows nothing of HTTP. Whoever calls it must shield it from the client hanging up: once the gate
has granted a unit, the claim has to reach the log.
"""

import asyncio
from decimal import Decimal
from functools import partial
from typing import Literal, NamedTuple

import structlog

from orders import claims
from orders.log import Acknowledgements, LogUnavailable
from sales import crashpoints
from sales.directory import Facts
from sales.gate import Answer, Attempt, ClaimLetter, Fenced, Verdict, from_ms
from sales.request_id import asking, request_id
from sales.turnstile import Turnstile

_MOST_FORMS = 1024  # sales that one process sells at a time

logger = structlog.get_logger(__name__)


class Placed(NamedTuple):
    """The gate's answer, and for a claimed or replayed attempt how far its claim has come.

    `queued` is the promise: the log has acknowledged the claim. `held` means the unit is set
    aside and the acknowledgement is late: ask again.
    """

    answer: Answer
    order_id: str
    state: Literal["held", "queued"] | None = None


async def place(
    turnstile: Turnstile,
    log: Acknowledgements,
    facts: Facts,
    attempt: Attempt,
    *,
    traceparent: str | None = None,
) -> Placed:
    """Tries to get the attempt's units of an armed sale.

    Raises LogUnavailable before anything is held, sales.gate.Fenced when nothing was decided, and
    sales.gate.GateUnreachable when the outcome is unknown; repeating with the same key converges.
    """
    if not log.available():
        raise LogUnavailable("the log takes no records now")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + log.promise_seconds
    if facts.fenced:
        raise Fenced("the gate is being armed again")
    crashpoints.reached("place.before-gate")
    answer = await turnstile.attempt(facts, attempt)
    verdict = answer.verdict
    if verdict is Verdict.REPLAYED:
        state: Literal["held", "queued"] = "held" if answer.second == ClaimLetter.HELD else "queued"
        return Placed(answer, attempt.order_id, state)
    if verdict is not Verdict.CLAIMED:
        return Placed(answer, attempt.order_id)

    crashpoints.reached("place.after-gate")
    order_id, customer, quantity, _ = attempt
    record = _form(facts, answer.first).record(
        order_id, customer, quantity, from_ms(answer.first), traceparent
    )
    try:
        promised = log.promise(record, deadline, partial(_reported, turnstile, facts, order_id, asking.get()))
    except LogUnavailable:
        # The queue filled up since we looked. The unit stays set aside: the sweeper appends it.
        return Placed(answer, attempt.order_id, "held")
    crashpoints.reached("place.after-append")
    acknowledged = await promised
    crashpoints.reached("place.after-acknowledgement")
    # The clock is asked again: this process may have stood still meanwhile, and an arming waits no
    # longer than the promise for claims of the epoch before. A later acknowledgement promises nothing.
    in_time = loop.time() < deadline
    return Placed(answer, attempt.order_id, "queued" if acknowledged and in_time else "held")


_forms: dict[str, tuple[Facts, claims.ClaimForm]] = {}


def _form(facts: Facts, claimed_at: str) -> claims.ClaimForm:
    """The form for claims on these facts, one of which was granted at this time."""
    known = _forms.get(facts.seal)
    if known is not None and known[0] is facts:
        return known[1]
    shared = claims.Claim(
        v=claims.VERSION,
        order_id=facts.sale_id,
        sale_id=facts.sale_id,
        product_id=facts.product_id,
        user_id="anybody",
        quantity=1,
        unit_price=Decimal(facts.unit_price),
        currency=facts.currency,
        pool=facts.pool,
        epoch=facts.epoch,
        claimed_at=from_ms(claimed_at),
    )
    form = claims.ClaimForm(shared, facts.partition)
    if len(_forms) >= _MOST_FORMS:
        _forms.clear()
    _forms[facts.seal] = facts, form
    return form


def _reported(
    turnstile: Turnstile,
    facts: Facts,
    order_id: str,
    fields: dict[bytes, bytes] | None,
    error: Exception | None,
) -> None:
    if error is None:
        turnstile.mark_queued(facts, order_id)
    else:
        # Unknown, not failed: the record may stand in the log. Never release here; the sweeper goes on.
        asked = {"request_id": request_id(fields)} if fields is not None else {}
        logger.warning("append not acknowledged", order_id=order_id, error=str(error), **asked)

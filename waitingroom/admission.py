"""The proof that somebody's turn has come: a signature over sale, customer and the end of the turn.

Sent in the header `Fluxgate-Admission`. It is verified by signature and arithmetic alone, and
spent in the same gate call as the unit: the gate decides whether a sale asks for one.
"""

import time

from django.core import signing

HEADER = "Fluxgate-Admission"
_SALT = "fluxgate.waitingroom.admission"


class AdmissionInvalid(Exception):
    """Forged, cut, or made out for another sale or customer."""


def admit(sale: str, customer: str, *, until: float) -> str:
    """An admission to the sale of this key that lives until this Unix time (s) on the web servers' clock."""
    return signing.dumps([sale, customer, round(until, 3)], salt=_SALT)


def is_live(admission: str, sale: str, customer: str) -> bool:
    """Whether this admission lets the customer at the sale's units now; False once it has run out.

    Raises AdmissionInvalid: an honest client never sends such a thing.
    """
    try:
        admitted_to, admitted, until = signing.loads(admission, salt=_SALT)
    except (signing.BadSignature, ValueError, TypeError):
        raise AdmissionInvalid("the signature does not match") from None
    if (admitted_to, admitted) != (sale, customer):
        raise AdmissionInvalid("it was made out for another sale or customer")
    return time.time() < until

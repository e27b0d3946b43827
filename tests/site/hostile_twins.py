"""The site with one guard removed, and the probes that must find it out.

`gunicorn tests.site.hostile_twins:application` removes the guard that FLUXGATE_TEST_TWIN names.
"""

import json
import os
from collections.abc import Callable
from typing import Any

import django

VARIABLE = "FLUXGATE_TEST_TWIN"


def _no_cap_on_bodies() -> None:
    from fluxgate_site import shop_door

    shop_door.BODY_BYTES = 1 << 40


def _kind_quantities() -> None:
    _order_request(strict=False)


def _unknown_fields() -> None:
    _order_request(extra="ignore")


def _order_request(**configuration: Any) -> None:
    """Before the API is imported: ninja makes models of its own out of this one."""
    from orders.schemas import OrderRequest

    OrderRequest.model_config.update(configuration)  # type: ignore[typeddict-item]
    OrderRequest.model_rebuild(force=True)


def _pythons_own_json() -> None:
    from fluxgate_site.bodies import StrictParser

    def parse_body(self: StrictParser, request: Any) -> Any:
        return json.loads(request.body)

    StrictParser.parse_body = parse_body  # type: ignore[method-assign]


def _trailers_are_headers() -> None:
    from fluxgate_site.protocol import Protocol

    del Protocol.on_headers_complete


def _upgrades_stay_open() -> None:
    from fluxgate_site.protocol import Protocol

    del Protocol._unsupported_upgrade_warning


def _keys_are_joined() -> None:
    from orders import api

    api._times = lambda request, name: 1


def _admissions_are_believed() -> None:
    from waitingroom import admission

    admission.is_live = lambda admission, sale, customer: True


TWINS: dict[str, tuple[Callable[[], None], list[str]]] = {
    "no cap on bodies": (_no_cap_on_bodies, ["body: 4,097 bytes", "body: one chunk too large"]),
    "quantities that are not whole numbers": (_kind_quantities, ["body: text", "body: true", "body: 3.0"]),
    "unknown fields": (_unknown_fields, ["body: a price", "body: another's name"]),
    "Python's own JSON": (_pythons_own_json, ["body: a name twice", "body: NaN", "body: UTF-16"]),
    "trailers are headers": (_trailers_are_headers, ["frame: the key in the trailers"]),
    "upgraded connections stay open": (_upgrades_stay_open, ["frame: an order behind an upgrade"]),
    "several keys are joined": (_keys_are_joined, ["header: two keys", "header: one key twice"]),
    "admissions are believed": (
        _admissions_are_believed,
        ["admission: changed", "admission: of another sale"],
    ),
}

if VARIABLE in os.environ:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fluxgate_site.settings")
    django.setup(set_prefix=False)
    TWINS[os.environ[VARIABLE]][0]()
    from fluxgate_site.asgi import application

    __all__ = ["application"]
